import { Bell, BellOff, CalendarClock, ChartColumn, MessageSquarePlus, Moon, MoreHorizontal, Sun, X } from "lucide-react";
import { DropdownMenu } from "radix-ui";
import { Suspense, lazy, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { Link, useLocation, useRoute } from "wouter";
import { type Session, api } from "./api";
import { Dialog } from "./Dialog";
import { save } from "./files";
import { markdownOf } from "./messages";
import { t } from "./texts";
import { notifications, tellEnded, useNotifications } from "./notify";
import { Usage } from "./Usage";

const Share = lazy(() => import("./Share"));
const SEARCH_AFTER_MS = 200; // since the last key
const RUNNING_LOOK_MS = 4000; // between two looks at turns that run in the background

export interface Sessions {
  list: Session[] | null;
  hasMore: boolean;
  error: Error | null;
  running: ReadonlySet<string>;
  refresh: () => void;
  loadMore: () => void;
  setTitle: (id: string, title: string) => void;
  setRunning: (id: string, running: boolean) => void;
  forget: (id: string) => void;
}

/** The chats of this user, newest first, without sub-sessions. Read anew when the tab is looked at again. */
export function useSessions(search: string): Sessions {
  const [list, setList] = useState<Session[] | null>(null);
  const [cursor, setCursor] = useState<string | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const [running, setRunningIds] = useState<ReadonlySet<string>>(new Set());
  const asks = useRef(0);
  const refresh = useCallback(() => {
    const asked = ++asks.current;
    api.sessions(null, search).then(
      (page) => {
        if (asked !== asks.current) return; // a newer question is under way
        setList(page.sessions);
        setCursor(page.next_cursor);
        setError(null);
      },
      (problem: Error) => setError(problem),
    );
  }, [search]);
  const loadMore = useCallback(() => {
    api.sessions(cursor, search).then(
      (page) => {
        setList((known) => [...(known ?? []), ...page.sessions.filter((s) => !known?.some((k) => k.id === s.id))]);
        setCursor(page.next_cursor);
      },
      (problem: Error) => setError(problem),
    );
  }, [cursor, search]);
  useEffect(() => {
    const timer = setTimeout(refresh, search ? SEARCH_AFTER_MS : 0);
    const onVisible = () => document.visibilityState === "visible" && refresh();
    document.addEventListener("visibilitychange", onVisible);
    return () => {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisible);
    };
  }, [refresh, search]);
  const setTitle = useCallback(
    (id: string, title: string) => setList((known) => known?.map((s) => (s.id === id ? { ...s, title } : s)) ?? null),
    [],
  );
  const setRunning = useCallback((id: string, runs: boolean) => {
    setRunningIds((known) => {
      if (known.has(id) === runs) return known;
      const next = new Set(known);
      if (runs) next.add(id);
      else next.delete(id);
      return next;
    });
  }, []);

  // Turns run in chats that nobody looks at too. When one has ended, that is told.
  const known = useRef({ list, running });
  known.current = { list, running };
  const someRuns = running.size > 0 || (list?.some((session) => session.running) ?? false);
  useEffect(() => {
    if (!someRuns) return;
    const look = () =>
      void api.running().then(
        (answer) => {
          const now = new Set(answer.sessions.map((session) => session.id));
          const open = /^#\/s\/([^/]+)$/.exec(window.location.hash)?.[1];
          const before = known.current.list ?? [];
          for (const { id, title, running: ran } of before) {
            const isOver = (ran || known.current.running.has(id)) && !now.has(id) && id !== open; // the chat that is open tells itself
            if (isOver) tellEnded(id, title ?? t.untitled);
          }
          setRunningIds((ids) => {
            const left = [...ids].filter((id) => now.has(id) || id === open);
            return left.length === ids.size ? ids : new Set(left);
          });
          if (before.some((session) => session.running !== now.has(session.id))) {
            setList((sessions) => sessions?.map((session) => ({ ...session, running: now.has(session.id) })) ?? null);
          }
        },
        () => {}, // the next look may succeed
      );
    const timer = setInterval(look, RUNNING_LOOK_MS);
    return () => clearInterval(timer);
  }, [someRuns]);
  const forget = useCallback((id: string) => setList((known) => known?.filter((s) => s.id !== id) ?? null), []);
  return useMemo(
    () => ({ list, hasMore: cursor !== null, error, running, refresh, loadMore, setTitle, setRunning, forget }),
    [list, cursor, error, running, refresh, loadMore, setTitle, setRunning, forget],
  );
}

export function Sidebar(props: {
  sessions: Sessions;
  search: string;
  onSearch: (text: string) => void;
  open: boolean;
  onClose: () => void;
  theme: "light" | "dark";
  onTheme: () => void;
}) {
  const { sessions, search } = props;
  const shown = sessions.list;
  const notifies = useNotifications();
  const [isAdmin, setIsAdmin] = useState(false);
  useEffect(() => void api.isAdmin().then(setIsAdmin), []);
  const closeButton = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (props.open) closeButton.current?.focus();
  }, [props.open]);
  return (
    <>
      {props.open && <div className="fixed inset-0 z-20 bg-black/40 md:hidden" onClick={props.onClose} aria-hidden />}
      <nav
        aria-label={t.chatsLabel}
        onKeyDown={(event) => event.key === "Escape" && props.onClose()}
        className={`${props.open ? "flex" : "hidden"} fixed inset-y-0 left-0 z-30 w-72 flex-col border-r bg-sidebar md:static md:flex md:w-64 lg:w-72`}
      >
        <div className="flex items-center gap-2 px-3 pt-3 pb-2">
          <img src="/favicon.svg" alt="" className="size-7" />
          <span className="flex-1 font-semibold tracking-tight">Longhaul</span>
          {notifications.possible && (
            <button type="button" className="icon-button" aria-pressed={notifies} onClick={() => void notifications.toggle()} aria-label={t.notify} title={t.notify}>
              {notifies ? <Bell size={18} /> : <BellOff size={18} />}
            </button>
          )}
          <button
            type="button"
            className="icon-button"
            onClick={props.onTheme}
            aria-label={props.theme === "dark" ? t.light : t.dark}
            title={props.theme === "dark" ? t.light : t.dark}
          >
            {props.theme === "dark" ? <Sun size={18} /> : <Moon size={18} />}
          </button>
          <button ref={closeButton} type="button" className="icon-button md:hidden" onClick={props.onClose} aria-label={t.closeMenu}>
            <X size={18} />
          </button>
        </div>
        <div className="flex flex-col gap-2 px-3 pb-2">
          <Link href="/" className="button w-full bg-background">
            <MessageSquarePlus size={16} /> {t.newChat}
          </Link>
          <input
            type="search"
            className="field"
            placeholder={t.searchChats}
            aria-label={t.searchChats}
            value={search}
            onChange={(event) => props.onSearch(event.target.value)}
          />
        </div>
        <div className="min-h-0 flex-1 overflow-y-auto px-2 pb-3">
          {sessions.error && (
            <p role="alert" className="px-2 py-1 text-sm text-danger">
              {sessions.error.message}{" "}
              <button type="button" className="underline" onClick={sessions.refresh}>
                {t.retry}
              </button>
            </p>
          )}
          {shown?.length === 0 && <p className="px-2 py-1 text-sm text-muted-foreground">{search ? t.noMatch : t.noChats}</p>}
          <ul className="flex flex-col gap-0.5">
            {shown?.map((session) => (
              <Entry key={session.id} session={session} sessions={sessions} />
            ))}
          </ul>
          {sessions.hasMore && (
            <button type="button" className="mt-2 w-full py-1 text-sm text-muted-foreground underline" onClick={sessions.loadMore}>
              {t.more}
            </button>
          )}
        </div>
        <Usage changed={sessions.running} />
        <div className="flex gap-1 border-t px-2 py-2 text-sm">
          <Link href="/schedules" className="flex items-center gap-2 rounded-lg px-2.5 py-1.5 text-muted-foreground hover:bg-muted hover:text-foreground">
            <CalendarClock size={16} aria-hidden /> {t.schedules}
          </Link>
          {isAdmin && (
            <Link href="/admin" className="flex items-center gap-2 rounded-lg px-2.5 py-1.5 text-muted-foreground hover:bg-muted hover:text-foreground">
              <ChartColumn size={16} aria-hidden /> {t.admin}
            </Link>
          )}
        </div>
      </nav>
    </>
  );
}

function Entry({ session, sessions }: { session: Session; sessions: Sessions }) {
  const [isOpen, parameters] = useRoute("/s/:id/*?");
  const [, navigate] = useLocation();
  const [asked, setAsked] = useState<"rename" | "delete" | "share" | null>(null);
  const [problem, setProblem] = useState("");
  const current = isOpen && parameters.id === session.id;
  const title = session.title ?? t.untitled;
  const close = () => {
    setAsked(null);
    setProblem("");
  };
  const failed = (error: Error) => setProblem(error.message);
  return (
    <li className={`group flex items-center rounded-lg ${current ? "bg-muted" : "hover:bg-muted"}`}>
      <Link href={`/s/${session.id}`} aria-current={current ? "page" : undefined} className="min-w-0 flex-1 truncate px-2.5 py-1.5 text-sm">
        {(sessions.running.has(session.id) || (session.running && !current)) && <span className="spinner mr-2 align-[-2px] text-primary" role="img" aria-label={t.running} />}
        {title}
      </Link>
      <DropdownMenu.Root>
        <DropdownMenu.Trigger
          className={`icon-button size-8 ${current ? "" : "opacity-0 group-focus-within:opacity-100 group-hover:opacity-100 data-[state=open]:opacity-100"}`}
          aria-label={`${t.options}: ${title}`}
        >
          <MoreHorizontal size={16} />
        </DropdownMenu.Trigger>
        <DropdownMenu.Portal>
          <DropdownMenu.Content align="end" className="z-50 min-w-44 rounded-lg border bg-background p-1 text-sm shadow-lg">
            <Choice onSelect={() => setAsked("rename")}>{t.rename}</Choice>
            <Choice onSelect={() => setAsked("share")}>{t.share}</Choice>
            <Choice onSelect={() => void download(session.id, title).catch(failed)}>{t.export}</Choice>
            <Choice onSelect={() => setAsked("delete")} danger>
              {t.delete}
            </Choice>
          </DropdownMenu.Content>
        </DropdownMenu.Portal>
      </DropdownMenu.Root>
      {asked === "share" && (
        <Suspense>
          <Share sessionId={session.id} onClose={close} />
        </Suspense>
      )}
      <Dialog title={t.renameTitle} open={asked === "rename"} onOpenChange={close}>
        <form
          className="flex flex-col gap-3"
          onSubmit={(event) => {
            event.preventDefault();
            const wanted = String(new FormData(event.currentTarget).get("title")).trim();
            if (!wanted) return;
            api.rename(session.id, wanted).then(() => {
              sessions.setTitle(session.id, wanted);
              close();
            }, failed);
          }}
        >
          <input name="title" aria-label={t.title} className="field" defaultValue={session.title ?? ""} maxLength={300} />
          <Buttons problem={problem} onCancel={close} action={t.save} />
        </form>
      </Dialog>
      <Dialog title={t.deleteTitle} description={t.deleteText} open={asked === "delete"} onOpenChange={close}>
        <form
          onSubmit={(event) => {
            event.preventDefault();
            api.remove(session.id).then(() => {
              sessions.forget(session.id);
              if (current) navigate("/");
            }, failed);
          }}
        >
          <Buttons problem={problem} onCancel={close} action={t.delete} />
        </form>
      </Dialog>
    </li>
  );
}

function Choice(props: { onSelect: () => void; danger?: boolean; children: string }) {
  return (
    <DropdownMenu.Item
      onSelect={props.onSelect}
      className={`cursor-pointer rounded-md px-2.5 py-1.5 outline-none data-[highlighted]:bg-muted ${props.danger ? "text-danger" : ""}`}
    >
      {props.children}
    </DropdownMenu.Item>
  );
}

function Buttons(props: { problem: string; onCancel: () => void; action: string }) {
  return (
    <div className="flex items-center justify-end gap-2">
      {props.problem && (
        <p role="alert" className="flex-1 text-sm text-danger">
          {props.problem}
        </p>
      )}
      <button type="button" className="button" onClick={props.onCancel}>
        {t.cancel}
      </button>
      <button className="button button-primary">{props.action}</button>
    </div>
  );
}

/** Save the whole conversation as a Markdown file. */
async function download(id: string, title: string): Promise<void> {
  let page = await api.history(id);
  let messages = page.messages;
  while (page.earlier !== null) {
    page = await api.historyAt(page.earlier);
    messages = [...page.messages, ...messages];
  }
  const text = markdownOf(title, messages, { user: t.you, assistant: t.copilot });
  save(new Blob([text], { type: "text/markdown" }), `${title.replace(/[^\p{L}\p{N} _-]/gu, "").trim() || "chat"}.md`);
}
