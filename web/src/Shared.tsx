import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { ApiError, type History, type SharedSession, api } from "./api";
import { type Live, type Message, filesOf, textOf, turnOf } from "./messages";
import { MessageList } from "./MessageList";
import { Answer } from "./MessageView";
import { ReadOnly } from "./ReadOnly";
import { endingsOf } from "./SubSession";
import { t } from "./texts";
import { UserBubble } from "./UserMessage";

const LOOK_MS = 4000;
const NOTHING: Live = { subSessions: new Map(), approvals: new Map(), progress: new Map() };

/** What anyone who has a link sees: the conversation as it goes on, and nothing to change. */
export default function Shared({ token }: { token: string }) {
  const [opened, setOpened] = useState<{ session: SharedSession; history: History } | null>(null);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    api
      .shared(token)
      .then(async (session) => setOpened({ session, history: await api.sharedHistory(token) }))
      .catch((error: Error) => setProblem(error instanceof ApiError && error.status === 404 ? t.noSuchLink : error.message));
  }, [token]);
  return (
    <main className="flex h-full flex-col">
      <header className="flex h-14 shrink-0 items-center gap-3 border-b px-4">
        <img src="/favicon.svg" alt="" className="size-7" />
        <h1 className="min-w-0 flex-1 truncate text-sm font-semibold">{opened?.session.title ?? "Longhaul"}</h1>
        <span className="shrink-0 rounded-full border px-2.5 py-0.5 text-xs text-muted-foreground">{t.readOnly}</span>
      </header>
      {problem ? (
        <p role="alert" className="m-auto px-4 text-sm">
          {problem}
        </p>
      ) : opened ? (
        <ReadOnly value>
          <Conversation token={token} session={opened.session} history={opened.history} />
        </ReadOnly>
      ) : (
        <p className="m-auto text-sm text-muted-foreground">{t.loading}</p>
      )}
    </main>
  );
}

function Conversation({ token, session, history }: { token: string; session: SharedSession; history: History }) {
  const [earlier, setEarlier] = useState(history.earlier);
  const [running, setRunning] = useState(session.active_turn !== null);
  const [problem, setProblem] = useState("");
  const transport = useMemo(
    () => new DefaultChatTransport<Message>({ prepareReconnectToStreamRequest: () => ({ api: `/v1/shared/${token}/stream` }) }),
    [token],
  );
  const { messages, setMessages, resumeStream } = useChat<Message>({ id: `shared-${token}`, transport, messages: history.messages, experimental_throttle: 40 });
  const newest = useRef(session.messages.at(-1)?.sequence ?? -1);

  // Follow the turn that runs by its stream; when it has ended, its rows are the truth.
  useEffect(() => {
    let isCurrent = true;
    let timer = 0;
    const look = async () => {
      try {
        const now = await api.shared(token);
        const sequence = now.messages.at(-1)?.sequence ?? -1;
        const active = now.active_turn?.turn_id;
        if (!isCurrent) return;
        if (active !== undefined || sequence !== newest.current) {
          const page = await api.sharedHistory(token);
          if (!isCurrent) return;
          newest.current = sequence;
          const shown = page.messages.filter((message) => message.role !== "assistant" || turnOf(message) !== active);
          setMessages((known) => {
            const from = known.findIndex((message) => message.id === page.messages[0]?.id);
            if (from === -1) setEarlier(page.earlier);
            return [...known.slice(0, Math.max(from, 0)), ...shown];
          });
        }
        setRunning(active !== undefined);
        setProblem("");
        if (active !== undefined) await resumeStream();
      } catch (error) {
        if (!isCurrent) return;
        if (error instanceof ApiError && error.status === 404) {
          setRunning(false);
          setProblem(t.noSuchLink);
          return;
        }
      }
      if (isCurrent) timer = window.setTimeout(look, LOOK_MS);
    };
    void look();
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [token, setMessages, resumeStream]);

  const loadEarlier = useCallback(async () => {
    if (earlier === null) return;
    const page = await api.historyAt(earlier);
    setEarlier(page.earlier);
    setMessages((now) => [...page.messages, ...now]);
  }, [earlier, setMessages]);
  const endings = useMemo(() => endingsOf(messages, NOTHING.subSessions), [messages]);
  const row = (message: Message, index: number) => (
    <div key={message.id} className="pb-6">
      {message.role === "user" ? (
        <UserBubble text={textOf(message)} files={filesOf(message)} />
      ) : (
        <Answer message={message} streaming={running && index === messages.length - 1} live={NOTHING} endings={endings} />
      )}
    </div>
  );
  return (
    <>
      <MessageList title={session.title ?? "Longhaul"} messages={messages} hasEarlier={earlier !== null} loadEarlier={loadEarlier} keep="" toEndSignal={0} row={row}>
        {running && (
          <p role="status" className="flex items-center gap-2 pb-6 text-sm text-muted-foreground">
            <span className="spinner text-primary" aria-hidden /> {t.working}
          </p>
        )}
      </MessageList>
      {problem && (
        <p role="alert" className="border-t px-4 py-2 text-center text-sm text-danger">
          {problem}
        </p>
      )}
    </>
  );
}
