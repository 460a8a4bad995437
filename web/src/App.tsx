import { Suspense, lazy, useCallback, useEffect, useState } from "react";
import { Route, Router, Switch, useLocation } from "wouter";
import { useHashLocation } from "wouter/use-hash-location";
import { ApiError, api, token } from "./api";
import { Chat } from "./Chat";
import { Dialog } from "./Dialog";
import { Sidebar, useSessions } from "./Sidebar";
import { Start } from "./Start";
import { t } from "./texts";

// What is not needed for a chat is loaded when it is opened.
const Tree = lazy(() => import("./Tree"));
const Schedules = lazy(() => import("./Schedules"));
const Admin = lazy(() => import("./Admin"));
const Shared = lazy(() => import("./Shared"));
const LINK = /^\/shared\/([\w-]+)$/;

type Theme = "light" | "dark";
const THEME = "longhaul.theme";

function useTheme(): [Theme, () => void] {
  const [theme, setTheme] = useState<Theme>(() => {
    const kept = localStorage.getItem(THEME);
    if (kept === "light" || kept === "dark") return kept;
    return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  });
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  const toggle = useCallback(() => {
    setTheme((now) => {
      const next = now === "dark" ? "light" : "dark";
      localStorage.setItem(THEME, next);
      return next;
    });
  }, []);
  return [theme, toggle];
}

export function App() {
  const link = LINK.exec(window.location.pathname)?.[1];
  if (link !== undefined) return <OfLink token={link} />;
  return (
    <Router hook={useHashLocation}>
      <Frame />
    </Router>
  );
}

function OfLink({ token: link }: { token: string }) {
  useTheme();
  return (
    <Suspense>
      <Shared token={link} />
    </Suspense>
  );
}

function Frame() {
  const [search, setSearch] = useState("");
  const sessions = useSessions(search);
  const [theme, toggleTheme] = useTheme();
  const [menuOpen, setMenuOpen] = useState(false);
  const [location] = useLocation();
  useEffect(() => setMenuOpen(false), [location]);
  const openMenu = useCallback(() => setMenuOpen(true), []);
  return (
    <div className="flex h-full">
      <Sidebar sessions={sessions} search={search} onSearch={setSearch} open={menuOpen} onClose={() => setMenuOpen(false)} theme={theme} onTheme={toggleTheme} />
      <main className="flex min-w-0 flex-1 flex-col">
        <Suspense>
        <Switch>
          <Route path="/schedules"><Schedules onMenu={openMenu} /></Route>
          <Route path="/admin"><Admin onMenu={openMenu} /></Route>
          <Route path="/s/:id/tree">{({ id }) => <Tree key={id} id={id} onMenu={openMenu} />}</Route>
          <Route path="/s/:id">{({ id }) => <Chat key={id} id={id} sessions={sessions} onMenu={openMenu} />}</Route>
          <Route>
            <Start onMenu={openMenu} onCreated={sessions.refresh} />
          </Route>
        </Switch>
        </Suspense>
      </main>
      {sessions.error instanceof ApiError && sessions.error.status === 401 && <SignIn onDone={() => window.location.reload()} />}
    </div>
  );
}

function SignIn({ onDone }: { onDone: () => void }) {
  const [value, setValue] = useState("");
  const [problem, setProblem] = useState("");
  return (
    <Dialog title={t.tokenTitle} description={t.tokenText} open onOpenChange={() => {}}>
      <form
        className="flex flex-col gap-3"
        onSubmit={(event) => {
          event.preventDefault();
          token.set(value.trim());
          api.sessions(null).then(onDone, (error: Error) => setProblem(error.message));
        }}
      >
        <label className="text-sm">
          {t.token}
          <input className="field mt-1" type="password" autoComplete="off" value={value} onChange={(e) => setValue(e.target.value)} />
        </label>
        {problem && (
          <p role="alert" className="text-sm text-danger">
            {problem}
          </p>
        )}
        <button className="button button-primary self-end" disabled={!value.trim()}>
          {t.signIn}
        </button>
      </form>
    </Dialog>
  );
}
