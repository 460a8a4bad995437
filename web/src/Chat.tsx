import { ArrowLeft, Network, Share2 } from "lucide-react";
import { Suspense, lazy, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { Link } from "wouter";
import { ApiError, type Turn, api } from "./api";
import { Composer } from "./Composer";
import { Header } from "./Header";
import { type Message, filesOf, textOf, turnOf } from "./messages";
import { MessageList } from "./MessageList";
import { Answer } from "./MessageView";
import { tellEnded } from "./notify";
import type { Sessions } from "./Sidebar";
import { firstMessages } from "./Start";
import { endingsOf } from "./SubSession";
import { t } from "./texts";
import { Timeline } from "./Timeline";
import { type Opened, open, useTurns } from "./useTurns";
import { type Shown, UserBubble, UserMessage } from "./UserMessage";

const Share = lazy(() => import("./Share"));

/** One chat: loads its newest page, then shows it. */
export function Chat({ id, sessions, onMenu }: { id: string; sessions: Sessions; onMenu: () => void }) {
  const [opened, setOpened] = useState<Opened | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const load = useCallback(() => {
    setError(null);
    open(id).then(setOpened, setError);
  }, [id]);
  useEffect(load, [load]);
  if (opened !== null) return <Conversation opened={opened} sessions={sessions} onMenu={onMenu} />;
  return (
    <>
      <Header title="" onMenu={onMenu} />
      <div className="flex flex-1 flex-col items-center justify-center gap-3 text-sm text-muted-foreground">
        {error === null ? (
          <p>
            <span className="spinner mr-2 align-[-2px]" aria-hidden /> {t.loading}
          </p>
        ) : (
          <>
            <p role="alert">{error instanceof ApiError && error.status === 404 ? t.notFound : error.message}</p>
            <button type="button" className="button" onClick={load}>
              {t.retry}
            </button>
          </>
        )}
      </div>
    </>
  );
}

function Conversation({ opened, sessions, onMenu }: { opened: Opened; sessions: Sessions; onMenu: () => void }) {
  const { session } = opened;
  const { id } = session;
  const { setTitle, setRunning } = sessions;
  const [turns, setTurns] = useState<ReadonlyMap<string, Turn>>(new Map());
  const [ownTitle, setOwnTitle] = useState(session.title);
  const title = sessions.list?.find((one) => one.id === id)?.title ?? ownTitle ?? t.untitled;
  const onTitle = useCallback(
    (wanted: string) => {
      setOwnTitle(wanted);
      setTitle(id, wanted);
    },
    [id, setTitle],
  );
  const chat = useTurns(opened, onTitle);
  const { busy, send } = chat;

  useEffect(() => {
    setRunning(id, busy);
    if (busy) return;
    const stopReading = new AbortController();
    api.turns(id, stopReading.signal).then(
      (answer) => setTurns(new Map(answer.turns.map((turn) => [turn.turn_id, turn]))),
      () => {}, // only the figures below the answers are missing then
    );
    return () => stopReading.abort();
  }, [id, busy, setRunning]);

  useEffect(() => {
    const first = firstMessages.get(id);
    if (first === undefined) return;
    firstMessages.delete(id);
    void send(first);
  }, [id, send]);

  useTabTitle(id, title, busy);
  const [toEndSignal, setToEndSignal] = useState(0);
  const [sharing, setSharing] = useState(false);
  const [editing, setEditing] = useState(""); // the id of a message
  const [shown, setShown] = useState<Shown | null>(null); // an earlier version
  const messages = useMemo(() => withVersion(chat.messages, shown), [chat.messages, shown]);
  const ended = JSON.stringify([...endingsOf(messages, chat.live.subSessions)]);
  const endings = useMemo(() => new Map<string, string>(JSON.parse(ended)), [ended]); // the same map while nothing ends
  const [timeline, setTimeline] = useState(""); // of this turn
  const waits = [...chat.live.approvals.values()].some((approval) => approval.status === "waiting");
  const canChange = !busy && shown === null;
  const lasts = useMemo(() => lastOfTurns(messages), [messages]);
  const row = (message: Message, index: number) => {
    const isNewest = index === messages.length - 1;
    const streaming = busy && isNewest && message.role === "assistant";
    if (message.role === "user") {
      return (
        <div key={message.id} className="pb-2">
          <UserMessage
            sessionId={id}
            messageId={message.id}
            text={textOf(message)}
            files={filesOf(message)}
            edited={message.metadata?.edited ?? false}
            shown={shown?.messageId === message.id ? shown : undefined}
            onShow={busy ? undefined : setShown}
            editing={editing === message.id}
            onEditing={setEditing}
            onEdit={canChange ? chat.edit : undefined}
          />
        </div>
      );
    }
    const isLast = lasts.has(message.id);
    return (
      <div key={message.id} className="pb-6">
        <Answer
          message={message}
          streaming={streaming}
          live={chat.live}
          endings={endings}
          turn={isLast ? turns.get(turnOf(message)) : undefined}
          onRetry={canChange && isNewest ? chat.retry : undefined}
          onTimeline={setTimeline}
          onAnswerAgain={canChange && isLast ? chat.answerAgain : undefined}
        />
      </div>
    );
  };
  return (
    <>
      <Header
        title={title}
        onMenu={onMenu}
        before={
          session.parent_session_id && (
            <Link href={`/s/${session.parent_session_id}`} className="icon-button" aria-label={t.back} title={t.back}>
              <ArrowLeft size={18} />
            </Link>
          )
        }
      >
        <button type="button" className="icon-button" aria-label={t.share} title={t.share} onClick={() => setSharing(true)}>
          <Share2 size={18} />
        </button>
        <Link href={`/s/${id}/tree`} className="icon-button" aria-label={t.tree} title={t.tree}>
          <Network size={18} />
        </Link>
      </Header>
      <MessageList title={title} messages={messages} hasEarlier={chat.hasEarlier && shown === null} loadEarlier={chat.loadEarlier} keep={editing} toEndSignal={toEndSignal} row={row}>
        {busy && (
          <p role="status" className="flex items-center gap-2 pb-6 text-sm text-muted-foreground">
            <span className="spinner text-primary" aria-hidden />
            {chat.offline ? t.offline : chat.retryingIn !== null ? t.retrying(chat.retryingIn) : waits ? t.waitsForYou : t.working}
          </p>
        )}
        {chat.waiting.map((message) => (
          <div key={message.id} className="pb-6">
            <UserBubble text={message.content} files={message.files} waiting />
          </div>
        ))}
      </MessageList>
      {shown !== null && (
        <p className="mx-auto flex w-full max-w-3xl flex-wrap items-center gap-3 px-4 py-2 text-sm text-muted-foreground" role="status">
          {t.oldVersion}
          <button type="button" className="button" onClick={() => setShown(null)}>
            {t.toCurrent}
          </button>
        </p>
      )}
      {sharing && (
        <Suspense>
          <Share sessionId={id} onClose={() => setSharing(false)} />
        </Suspense>
      )}
      {timeline && <Timeline sessionId={id} turnId={timeline} workflowUrl={session.workflow_url} onClose={() => setTimeline("")} />}
      <Composer
        busy={busy}
        stopping={chat.stopping}
        problem={chat.problem}
        onStop={chat.stop}
        onSend={(draft) => {
          setShown(null);
          setToEndSignal((now) => now + 1);
          return send(draft);
        }}
      />
    </>
  );
}

/** Follow-ups divide the answer of a turn; its figures stand below the last piece. The ids of these pieces. */
function lastOfTurns(messages: Message[]): ReadonlySet<string> {
  const lasts = new Map<string, string>();
  for (const message of messages) if (message.role === "assistant") lasts.set(turnOf(message), message.id);
  return new Set(lasts.values());
}

/** The conversation with an earlier version of a message, and what followed it then. */
function withVersion(messages: Message[], shown: Shown | null): Message[] {
  const at = messages.findIndex((message) => message.id === shown?.messageId);
  if (shown === null || at === -1) return messages;
  return [...messages.slice(0, at), ...shown.versions[shown.index]!.ui_messages];
}

/** The title of the tab; it says when a turn runs, and when one has ended while another tab was looked at. */
function useTabTitle(id: string, title: string, busy: boolean): void {
  const wasBusy = useRef(busy);
  useEffect(() => {
    const isOver = wasBusy.current && !busy;
    wasBusy.current = busy;
    document.title = `${busy ? "● " : ""}${title} · Longhaul`;
    if (isOver && document.visibilityState === "hidden") tellEnded(id, title);
  }, [id, title, busy]);
  useEffect(
    () => () => {
      document.title = "Longhaul";
    },
    [],
  );
}
