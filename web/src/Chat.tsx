import { ArrowDown, ArrowLeft, Network } from "lucide-react";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { Link } from "wouter";
import { ApiError, type Turn, api } from "./api";
import { Composer } from "./Composer";
import { Header } from "./Header";
import { type Message, textOf, turnOf } from "./messages";
import { Answer } from "./MessageView";
import type { Sessions } from "./Sidebar";
import { firstMessages } from "./Start";
import { endingsOf } from "./SubSession";
import { t } from "./texts";
import { Timeline } from "./Timeline";
import { type Opened, open, useTurns } from "./useTurns";
import { type Shown, UserBubble, UserMessage } from "./UserMessage";

const NEAR_END_PX = 120;

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

  useTabTitle(title, busy);
  const list = useStickToEnd();
  const [shown, setShown] = useState<Shown | null>(null); // an earlier version
  const messages = useMemo(() => withVersion(chat.messages, shown), [chat.messages, shown]);
  const ended = JSON.stringify([...endingsOf(messages, chat.live.subSessions)]);
  const endings = useMemo(() => new Map<string, string>(JSON.parse(ended)), [ended]); // the same map while nothing ends
  const [timeline, setTimeline] = useState(""); // of this turn
  const waits = [...chat.live.approvals.values()].some((approval) => approval.status === "waiting");
  const canChange = !busy && shown === null;
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
        <Link href={`/s/${id}/tree`} className="icon-button" aria-label={t.tree} title={t.tree}>
          <Network size={18} />
        </Link>
      </Header>
      <div className="relative min-h-0 flex-1">
        <div ref={list.scroller} onScroll={list.onScroll} className="h-full overflow-y-auto" tabIndex={0} role="log" aria-label={title}>
          <div ref={list.content} className="mx-auto flex max-w-3xl flex-col gap-6 px-4 py-6">
            {chat.hasEarlier && (
              <button type="button" className="button self-center" onClick={() => void chat.loadEarlier()}>
                {t.earlier}
              </button>
            )}
            {messages.map((message, index) => {
              const streaming = busy && index === messages.length - 1 && message.role === "assistant";
              return (
                <div className={message.role === "user" ? "message -mb-4" : streaming ? "" : "message"} key={message.id}>
                  {message.role === "user" ? (
                    <UserMessage
                      sessionId={id}
                      messageId={message.id}
                      text={textOf(message)}
                      edited={message.metadata?.edited ?? false}
                      shown={shown?.messageId === message.id ? shown : undefined}
                      onShow={busy ? undefined : setShown}
                      onEdit={canChange ? chat.edit : undefined}
                    />
                  ) : (
                    <Answer
                      message={message}
                      streaming={streaming}
                      live={chat.live}
                      endings={endings}
                      turn={isLastOfTurn(messages, index) ? turns.get(turnOf(message)) : undefined}
                      onRetry={canChange && index === messages.length - 1 ? chat.retry : undefined}
                      onTimeline={setTimeline}
                      onAnswerAgain={canChange && isLastOfTurn(messages, index) ? chat.answerAgain : undefined}
                    />
                  )}
                </div>
              );
            })}
            {busy && (
              <p role="status" className="flex items-center gap-2 text-sm text-muted-foreground">
                <span className="spinner text-primary" aria-hidden />
                {chat.offline ? t.offline : chat.retryingIn !== null ? t.retrying(chat.retryingIn) : waits ? t.waitsForYou : t.working}
              </p>
            )}
            {chat.waiting.map((message) => (
              <UserBubble key={message.id} text={message.content} waiting />
            ))}
          </div>
        </div>
        {!list.atEnd && (
          <button type="button" onClick={list.toEnd} aria-label={t.jump} title={t.jump} className="icon-button absolute bottom-3 left-1/2 -translate-x-1/2 border bg-background shadow-md">
            <ArrowDown size={18} />
          </button>
        )}
      </div>
      {shown !== null && (
        <p className="mx-auto flex w-full max-w-3xl flex-wrap items-center gap-3 px-4 py-2 text-sm text-muted-foreground" role="status">
          {t.oldVersion}
          <button type="button" className="button" onClick={() => setShown(null)}>
            {t.toCurrent}
          </button>
        </p>
      )}
      {timeline && <Timeline sessionId={id} turnId={timeline} workflowUrl={session.workflow_url} onClose={() => setTimeline("")} />}
      <Composer
        busy={busy}
        stopping={chat.stopping}
        problem={chat.problem}
        onStop={chat.stop}
        onSend={(text) => {
          setShown(null);
          list.toEnd();
          return send(text);
        }}
      />
    </>
  );
}

/** Follow-ups divide the answer of a turn; its figures stand below the last piece. */
function isLastOfTurn(messages: Message[], index: number): boolean {
  const turn = turnOf(messages[index]!);
  return !messages.slice(index + 1).some((later) => later.role === "assistant" && turnOf(later) === turn);
}

/** The conversation with an earlier version of a message, and what followed it then. */
function withVersion(messages: Message[], shown: Shown | null): Message[] {
  const at = messages.findIndex((message) => message.id === shown?.messageId);
  if (shown === null || at === -1) return messages;
  return [...messages.slice(0, at), ...shown.versions[shown.index]!.ui_messages];
}

/** The title of the tab; it says when an answer has become ready while another tab was looked at. */
function useTabTitle(title: string, busy: boolean): void {
  const wasBusy = useRef(busy);
  useEffect(() => {
    const finished = wasBusy.current && !busy && document.visibilityState === "hidden";
    wasBusy.current = busy;
    document.title = finished ? `✓ ${t.doneTitle} · ${title}` : `${busy ? "● " : ""}${title} · Longhaul`;
    if (!finished) return;
    const onVisible = () => {
      if (document.visibilityState === "visible") document.title = `${title} · Longhaul`;
    };
    document.addEventListener("visibilitychange", onVisible);
    return () => document.removeEventListener("visibilitychange", onVisible);
  }, [title, busy]);
  useEffect(
    () => () => {
      document.title = "Longhaul";
    },
    [],
  );
}

/** Keeps the newest message in view while the reader is at the end, and leaves the reader alone otherwise. */
function useStickToEnd() {
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const stick = useRef(true);
  const [atEnd, setAtEnd] = useState(true);
  const toEnd = useCallback(() => {
    stick.current = true;
    scroller.current?.scrollTo({ top: scroller.current.scrollHeight });
  }, []);
  useEffect(() => {
    const observer = new ResizeObserver(() => stick.current && toEnd());
    if (content.current) observer.observe(content.current);
    if (scroller.current) observer.observe(scroller.current);
    return () => observer.disconnect();
  }, [toEnd]);
  const onScroll = useCallback(() => {
    const box = scroller.current!;
    stick.current = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END_PX;
    setAtEnd(stick.current);
  }, []);
  return { scroller, content, atEnd, toEnd, onScroll };
}

