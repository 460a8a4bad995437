/** A session's messages and the turn that runs in it: sent, streamed, followed after a break, stopped. */

import { useChat } from "@ai-sdk/react";
import { type DataUIPart, DefaultChatTransport } from "ai";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { ApiError, type History, type SessionState, type WaitingMessage, api, authorization, newId, problemOf } from "./api";
import { choice } from "./choice";
import type { Draft } from "./Composer";
import { type FilePart, fileId } from "./files";
import { type ApprovalUpdate, type DataParts, type Live, type Message, type SubSessionUpdate, type ToolProgress, turnOf, weightOf } from "./messages";
import { t } from "./texts";

const THROTTLE_MS = 40; // between two renderings of a stream
const IDLE_LOOK_MS = 15_000; // another tab or program may start a turn in this session
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 10_000;
const END_LOOK_MS = 150; // between two looks at a turn whose stream has ended
const LOOKS_AT_END = 30;
const WAITING_LOOK_MS = 700; // between two looks at a turn that waits for its person

const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** The answer of the server to a message that was posted: null, or why it was not taken. */
type Answered = (messageId: string, problem: Error | null) => void;

/** The stock transport of the AI SDK. Of the conversation, only the message that is sent goes to the server. */
function transportOf(answered: Answered, leave: () => AbortSignal): DefaultChatTransport<Message> {
  return new DefaultChatTransport<Message>({
    api: "/v1/chat?ai=7",
    headers: authorization,
    prepareSendMessagesRequest: ({ id, messages, trigger, messageId }) => ({
      body: { id, messages: messages.slice(-1), trigger, messageId, ...choice.fields() },
    }),
    fetch: async (input, init) => {
      if (init?.method !== "POST") {
        const response = await fetch(input, init);
        if (!response.ok) throw await problemOf(response);
        return response;
      }
      const sent = (JSON.parse(init.body as string) as { messages: Message[] }).messages[0]!.id;
      try {
        const signal = AbortSignal.any([leave(), ...(init.signal ? [init.signal] : [])]);
        const response = await fetch(input, { ...init, signal });
        if (!response.ok) throw await problemOf(response);
        answered(sent, null);
        return response;
      } catch (problem) {
        answered(sent, problem as Error);
        throw problem;
      }
    },
  });
}

export interface Opened {
  session: SessionState;
  history: History;
}

/** How a session stands and its newest messages. In this order: if nothing runs, the messages are complete. */
export async function open(id: string): Promise<Opened> {
  const session = await api.session(id);
  return { session, history: await api.history(id) };
}

export function useTurns(first: Opened, onTitle: (title: string) => void) {
  const { id } = first.session;
  const [earlier, setEarlier] = useState(first.history.earlier);
  const [waiting, setWaiting] = useState<WaitingMessage[]>(first.session.pending.messages);
  const [subSessions, setSubSessions] = useState<ReadonlyMap<string, SubSessionUpdate>>(new Map());
  const [approvals, setApprovals] = useState<ReadonlyMap<string, ApprovalUpdate>>(new Map());
  const [progress, setProgress] = useState<ReadonlyMap<string, ToolProgress>>(new Map());
  const [retryingIn, setRetryingIn] = useState<number | null>(null);
  const [following, setFollowing] = useState(first.session.active_turn !== null); // a turn runs, as the server last said
  const [offline, setOffline] = useState(false);
  const [stopping, setStopping] = useState(false);
  const [problem, setProblem] = useState("");
  const newest = useRef(newestOf(first.session));
  const finishedTurn = useRef(""); // its stream has been read to the end
  const answered = useRef(""); // a turn that waited for its person
  const unsent = useRef<{ content: string; id: string } | null>(null); // the server may have it, or not

  const answers = useRef(new Map<string, (problem: Error | null) => void>());
  const posts = useRef(new AbortController()); // ends the streams of posted messages here; their turns go on
  const transport = useMemo(
    () =>
      transportOf(
        (messageId, refused) => answers.current.get(messageId)?.(refused),
        () => posts.current.signal,
      ),
    [],
  );
  const isResumed = useRef(false);
  const taken = useRef<(messageId: string) => void>(() => {});

  const { messages, setMessages, status, sendMessage, regenerate, resumeStream, clearError } = useChat<Message>({
    id,
    transport,
    messages: first.history.messages,
    generateId: newId,
    experimental_throttle: THROTTLE_MS,
    onFinish: ({ message, isAbort, isDisconnect }) => {
      if (!isDisconnect && !isAbort) finishedTurn.current = turnOf(message);
    },
    onData: (received) => {
      const part = received as DataUIPart<DataParts>;
      if (part.type === "data-title") onTitle(part.data.title);
      if (part.type === "data-progress") setRetryingIn(part.data.retrying_in ?? null);
      if (part.type === "data-follow-up") taken.current(part.data.message_id);
      if (part.type === "data-approval") {
        const approval = part.data;
        setApprovals((known) => new Map(known).set(approval.tool_call_id, approval));
      }
      if (part.type === "data-tool-progress" && part.id !== undefined) {
        const { id: call, data } = part;
        setProgress((known) => new Map(known).set(call, data));
      }
      if (part.type === "data-sub-session") {
        const update = part.data;
        setSubSessions((known) => new Map(known).set(update.sub_session_id, { ...known.get(update.sub_session_id), ...update }));
      }
    },
  });
  const live = useMemo<Live>(() => ({ subSessions, approvals, progress }), [subSessions, approvals, progress]);
  const streaming = status === "submitted" || status === "streaming";
  const busy = streaming || following;
  const current = useRef({ messages, waiting });
  current.current = { messages, waiting };

  // A stream that is read again from its start rebuilds its messages. Until such a message has grown again to what was
  // shown, what was shown stays.
  const shown = useRef(new Map<string, Message>());
  const visible = useMemo(
    () =>
      messages.map((message) => {
        const before = shown.current.get(message.id);
        if (before === undefined || weightOf(message) >= weightOf(before)) return message;
        return before;
      }),
    [messages],
  );

  // The stream of a posted message shows that message's answer and no other one. A resumed stream shows the whole turn.
  taken.current = (messageId) => {
    if (!isResumed.current) {
      posts.current.abort();
      posts.current = new AbortController();
      return;
    }
    const taken = current.current.waiting.find((message) => message.id === messageId);
    setWaiting((known) => known.filter((message) => message.id !== messageId));
    if (current.current.messages.some((message) => message.id === messageId)) return;
    if (taken !== undefined) setMessages((known) => withFollowUp(known, messageId, partsOf(taken.content, taken.files)));
    else {
      void api.history(id).then(
        (history) => {
          const found = history.messages.find((message) => message.id === messageId);
          if (found) setMessages((known) => withFollowUp(known, messageId, found.parts));
        },
        () => {}, // it is there when the turn has ended
      );
    }
  };

  const take = useCallback(
    ({ session, history }: Opened): boolean => {
      newest.current = newestOf(session);
      const active = session.active_turn?.turn_id;
      const ids = new Set(history.messages.map((message) => message.id));
      const known = current.current.messages;
      const from = known.findIndex((message) => message.id === history.messages[0]?.id);
      if (from === -1) setEarlier(history.earlier);
      setMessages([
        ...known.slice(0, Math.max(from, 0)),
        ...history.messages,
        ...known.filter((message) => message.role === "assistant" && turnOf(message) === active && !ids.has(message.id)),
      ]);
      setWaiting(session.pending.messages);
      setFollowing(active !== undefined);
      return active !== undefined;
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
  const isAskedAgain = useRef(false);
  const follow = useCallback(async () => {
    if (isFollowing.current) {
      isAskedAgain.current = true; // a turn may have begun after the last look
      return;
    }
    isFollowing.current = true;
    try {
      let pause = RETRY_FIRST_MS;
      for (let looks = 0; mounted.current; looks++) {
        try {
          isAskedAgain.current = false;
          const opened = await open(id);
          if (!mounted.current) return;
          setOffline(false);
          pause = RETRY_FIRST_MS;
          const active = opened.session.active_turn;
          const isRead = active?.turn_id === finishedTurn.current;
          // A stream ends while its turn waits for its person, and goes on when that has answered.
          if (isRead && active?.status === "waiting_for_approval") {
            answered.current = active.turn_id;
            await sleep(WAITING_LOOK_MS);
            continue;
          }
          // The end of a stream comes a moment before the end of its turn, and after an answer there is more to come.
          const isEnding = isRead && active?.turn_id !== answered.current && looks < LOOKS_AT_END;
          answered.current = "";
          if (!isEnding) {
            clearError();
            setRetryingIn(null);
            const runs = opened.session.active_turn !== null;
            shown.current = new Map(runs ? current.current.messages.map((message) => [message.id, message]) : []);
            take(opened);
            if (!runs) {
              setStopping(false);
              if (isAskedAgain.current) continue;
              return;
            }
            finishedTurn.current = "";
            isResumed.current = true;
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
      isResumed.current = false;
    }
  }, [id, take, resumeStream, clearError]);

  useEffect(() => {
    if (first.session.active_turn !== null) void follow();
  }, [first, follow]);

  useEffect(() => {
    if (busy) return;
    const look = () => {
      if (document.visibilityState !== "visible") return;
      void api.session(id).then(
        (session) => {
          if (session.active_turn !== null || newestOf(session) !== newest.current) void follow();
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

  /** Post a message that begins a turn, and read its stream. True: the server has taken the message. */
  const post = useCallback(
    async (messageId: string, request: () => Promise<void>): Promise<boolean> => {
      setProblem("");
      setFollowing(true);
      const answer = new Promise<Error | null>((resolve) => answers.current.set(messageId, resolve));
      void request().then(follow);
      const refused = await answer;
      answers.current.delete(messageId);
      if (refused === null) return true;
      setProblem(refused instanceof ApiError ? refused.message : t.notSent);
      return false;
    },
    [follow],
  );

  const followUp = useCallback(
    async (messageId: string, text: string, files: FilePart[], interrupt: boolean): Promise<boolean> => {
      setProblem("");
      setWaiting((known) => [...known, { id: messageId, content: text, files }]);
      try {
        const { disposition } = await api.followUp(id, text, messageId, files.map(fileId), interrupt);
        if (disposition === "started") void follow(); // the turn ended in this moment
        return true;
      } catch (failure) {
        setWaiting((known) => known.filter((message) => message.id !== messageId));
        setProblem(failure instanceof ApiError ? failure.message : t.notSent);
        return false;
      }
    },
    [id, follow],
  );

  const send = useCallback(
    async ({ text: typed, files, interrupt = false }: Draft): Promise<boolean> => {
      const text = typed || files.map((file) => file.filename).join(", "); // the API takes no message without a text
      // The same message again after a broken connection is the same message, which the server counts once.
      const content = JSON.stringify([text, files]);
      const messageId = unsent.current?.content === content ? unsent.current.id : newId();
      unsent.current = { content, id: messageId };
      let accepted: boolean;
      if (busy) accepted = await followUp(messageId, text, files, interrupt);
      else {
        accepted = await post(messageId, () => sendMessage({ id: messageId, role: "user", parts: partsOf(text, files) }));
        if (!accepted) setMessages((known) => known.filter((message) => message.id !== messageId));
      }
      if (accepted) unsent.current = null;
      return accepted;
    },
    [id, busy, post, followUp, sendMessage, setMessages],
  );

  /** Send another text in place of a message, and drop what followed it. Its files stay. */
  const edit = useCallback(
    (messageId: string, text: string) => {
      const files = current.current.messages.find((message) => message.id === messageId)?.parts.filter((part) => part.type === "file");
      return post(messageId, () => sendMessage({ parts: partsOf(text, files), messageId }));
    },
    [post, sendMessage],
  );

  /** Let a failed turn go on: what it did stays, and its last model call is made again. */
  const retry = useCallback(
    (turnId: string) => {
      setProblem("");
      setFollowing(true);
      api.retry(id, turnId).then(follow, (failure: Error) => {
        setFollowing(false);
        setProblem(failure.message);
      });
    },
    [id, follow],
  );

  /** Answer the message before this answer once more. */
  const answerAgain = useCallback(
    (answerId: string) => {
      const known = current.current.messages;
      const asked = known.slice(0, known.findIndex((message) => message.id === answerId)).at(-1);
      if (asked?.role === "user") void post(asked.id, () => regenerate({ messageId: answerId }));
    },
    [post, regenerate],
  );

  const stop = useCallback(() => {
    setStopping(true);
    api.stop(id).catch((failure: Error) => {
      setStopping(false);
      setProblem(failure.message);
    });
  }, [id]);

  const loadEarlier = useCallback(async () => {
    if (earlier === null) return;
    const page = await api.historyAt(earlier);
    setEarlier(page.earlier);
    setMessages((now) => [...page.messages, ...now]);
  }, [earlier, setMessages]);

  return {
    messages: visible,
    busy,
    offline,
    stopping,
    problem,
    retryingIn,
    waiting,
    live,
    hasEarlier: earlier !== null,
    send,
    edit,
    answerAgain,
    retry,
    stop,
    loadEarlier,
  };
}

function newestOf(session: SessionState): number {
  return session.messages.at(-1)?.sequence ?? -1;
}

function partsOf(text: string, files: FilePart[] = []): Message["parts"] {
  return [{ type: "text", text }, ...files];
}

/** The messages with a follow-up that the turn has just taken, before its answer. */
function withFollowUp(messages: Message[], messageId: string, parts: Message["parts"]): Message[] {
  if (messages.some((message) => message.id === messageId)) return messages;
  const at = messages.findIndex((message) => message.role === "assistant" && message.id.endsWith(`:${messageId}`));
  const followUp: Message = { id: messageId, role: "user", parts };
  return at === -1 ? [...messages, followUp] : [...messages.slice(0, at), followUp, ...messages.slice(at)];
}
