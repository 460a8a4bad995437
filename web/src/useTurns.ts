/** A session's messages and the turn that runs in it: sent, streamed, followed after a break, stopped. */

import { useChat } from "@ai-sdk/react";
import { type DataUIPart, DefaultChatTransport } from "ai";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { ApiError, type Row, type SessionPage, type WaitingMessage, api, authorization, newId, problemOf } from "./api";
import { type DataParts, type Message, type SubSessionUpdate, messagesOf } from "./conversation";
import { t } from "./texts";

const THROTTLE_MS = 40; // between two renderings of a stream
const IDLE_LOOK_MS = 15_000; // another tab or program may start a turn in this session
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 10_000;
const END_LOOK_MS = 150; // between two looks at a turn whose stream has ended
const LOOKS_AT_END = 30;

const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** The stock transport of the AI SDK, at the routes of one session. */
function transportOf(id: string): DefaultChatTransport<Message> {
  const stream = `/v1/sessions/${id}/stream`;
  return new DefaultChatTransport<Message>({
    api: stream,
    headers: authorization,
    prepareSendMessagesRequest: ({ messages }) => {
      const message = messages.at(-1)!;
      const text = message.parts.map((part) => (part.type === "text" ? part.text : "")).join("");
      return { body: { message: text, message_id: message.id } };
    },
    prepareReconnectToStreamRequest: () => ({ api: stream, headers: authorization() }),
    fetch: async (input, init) => {
      let response = await fetch(input, init);
      // Another tab has started a turn meanwhile: the message has joined it, and its stream shows the answer.
      if (response.status === 202) response = await fetch(stream, { headers: authorization(), signal: init?.signal });
      if (!response.ok) throw await problemOf(response);
      return response;
    },
  });
}

export function useTurns(first: SessionPage, onTitle: (title: string) => void) {
  const { id } = first;
  const rows = useRef<Row[]>(first.messages);
  const [hasEarlier, setHasEarlier] = useState(first.has_more_messages);
  const [waiting, setWaiting] = useState<WaitingMessage[]>(first.pending.messages);
  const [followUps, setFollowUps] = useState<ReadonlyMap<string, string>>(() => textsOf(first));
  const [subSessions, setSubSessions] = useState<ReadonlyMap<string, SubSessionUpdate>>(new Map());
  const [retryingIn, setRetryingIn] = useState<number | null>(null);
  const [following, setFollowing] = useState(first.active_turn !== null); // a turn runs, as far as the server last said
  const [offline, setOffline] = useState(false);
  const [stopping, setStopping] = useState(false);
  const [problem, setProblem] = useState("");
  const transport = useMemo(() => transportOf(id), [id]);
  const accepted = useRef(new Set<string>()); // ids of messages that the server has
  const refused = useRef<ApiError | null>(null);
  const finishedTurn = useRef(""); // its stream has been read to the end; the id of an answer is that of its turn

  const { messages, setMessages, status, sendMessage, resumeStream, clearError } = useChat<Message>({
    id,
    transport,
    messages: useMemo(() => messagesOf(first), [first]),
    generateId: newId,
    experimental_throttle: THROTTLE_MS,
    onError: (error) => {
      refused.current = error instanceof ApiError && error.status < 500 ? error : null;
    },
    onFinish: ({ message, isDisconnect }) => {
      if (!isDisconnect) finishedTurn.current = message.id;
    },
    onData: (received) => {
      const part = received as DataUIPart<DataParts>;
      if (part.type === "data-title") onTitle(part.data.title);
      if (part.type === "data-progress") setRetryingIn(part.data.retrying_in ?? null);
      if (part.type === "data-follow-up") setWaiting((known) => known.filter((message) => message.id !== part.data.message_id));
      if (part.type === "data-sub-session") {
        setSubSessions((known) => new Map(known).set(part.data.sub_session_id, part.data));
      }
    },
  });
  const streaming = status === "submitted" || status === "streaming";
  const busy = streaming || following;

  /** Take a page's rows over. True: a turn runs, and its stream is to be read. */
  const take = useCallback(
    (page: SessionPage): boolean => {
      const known = new Map(rows.current.map((row) => [row.id, row]));
      for (const row of page.messages) known.set(row.id, row);
      rows.current = [...known.values()].sort((a, b) => a.sequence - b.sequence);
      setMessages(messagesOf(page, rows.current));
      setWaiting(page.pending.messages);
      for (const message of textsOf(page).keys()) accepted.current.add(message);
      setFollowUps((texts) => new Map([...texts, ...textsOf(page)]));
      setFollowing(page.active_turn !== null);
      return page.active_turn !== null;
    },
    [setMessages],
  );

  const mounted = useRef(true);
  useEffect(() => {
    mounted.current = true;
    return () => {
      mounted.current = false;
    };
  }, []);

  // Whenever a stream has ended, by itself or by a break, the server is asked how the session stands. Its rows are the
  // truth. A turn that still runs is followed from its start, which the server keeps.
  const isFollowing = useRef(false);
  const follow = useCallback(async () => {
    if (isFollowing.current) return;
    isFollowing.current = true;
    try {
      let pause = RETRY_FIRST_MS;
      for (let looks = 0; mounted.current; looks++) {
        try {
          const page = await api.page(id);
          if (!mounted.current) return;
          setOffline(false);
          pause = RETRY_FIRST_MS;
          // The end of a stream comes a moment before the end of its turn.
          const isEnding = page.active_turn?.turn_id === finishedTurn.current && looks < LOOKS_AT_END;
          if (!isEnding) {
            clearError();
            setRetryingIn(null);
            if (!take(page)) {
              setStopping(false);
              return;
            }
            finishedTurn.current = "";
            await resumeStream();
            looks = -1;
          }
          await sleep(END_LOOK_MS);
        } catch (failure) {
          if (failure instanceof ApiError && failure.status < 500) {
            setProblem(failure.message);
            setFollowing(false);
            return;
          }
          setOffline(true);
          setFollowing(true);
          await sleep(pause);
          pause = Math.min(2 * pause, RETRY_MAX_MS);
        }
      }
    } finally {
      isFollowing.current = false;
    }
  }, [id, take, resumeStream, clearError]);

  useEffect(() => {
    if (first.active_turn !== null) void follow();
  }, [first, follow]);

  useEffect(() => {
    if (busy) return;
    const look = () => {
      if (document.visibilityState !== "visible") return;
      void api.page(id).then(
        (page) => {
          const newest = rows.current.at(-1)?.sequence ?? -1;
          const news = page.active_turn !== null || (page.messages.at(-1)?.sequence ?? -1) > newest;
          if (news) void follow();
        },
        () => {}, // the next look may succeed
      );
    };
    const timer = setInterval(look, IDLE_LOOK_MS);
    document.addEventListener("visibilitychange", look);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", look);
    };
  }, [busy, id, follow]);

  const send = useCallback(
    async (text: string): Promise<boolean> => {
      setProblem("");
      const messageId = newId();
      if (!busy) {
        refused.current = null;
        setFollowing(true);
        await sendMessage({ id: messageId, role: "user", parts: [{ type: "text", text }] });
        const refusal = refused.current as ApiError | null;
        await follow();
        if (refusal === null && accepted.current.has(messageId)) return true;
        setProblem(refusal?.message ?? t.notSent);
        return false;
      }
      setWaiting((known) => [...known, { id: messageId, content: text }]);
      setFollowUps((texts) => new Map(texts).set(messageId, text));
      try {
        await api.followUp(id, text, messageId);
        return true;
      } catch (failure) {
        setWaiting((known) => known.filter((message) => message.id !== messageId));
        setProblem((failure as Error).message);
        return false;
      }
    },
    [busy, id, sendMessage, follow],
  );

  const stop = useCallback(() => {
    setStopping(true);
    api.stop(id).catch((failure: Error) => {
      setStopping(false);
      setProblem(failure.message);
    });
  }, [id]);

  const loadEarlier = useCallback(async () => {
    const oldest = rows.current[0]?.sequence;
    const page = await api.page(id, oldest);
    rows.current = [...page.messages.filter((row) => !rows.current.some((known) => known.id === row.id)), ...rows.current];
    setHasEarlier(page.has_more_messages);
    const count = page.messages.length;
    if (count > 0) setMessages((now) => [...messagesOf({ ...page, active_turn: null }), ...now]);
  }, [id, setMessages]);

  return { messages, busy, offline, stopping, problem, retryingIn, waiting, followUps, subSessions, hasEarlier, send, stop, loadEarlier };
}

/** The texts of a page's messages, by the ids that their sender gave them. */
function textsOf(page: SessionPage): Map<string, string> {
  const texts = new Map(page.pending.messages.map((message) => [message.id, message.content]));
  for (const row of page.messages) if (row.client_message_id !== null) texts.set(row.client_message_id, row.content);
  return texts;
}
