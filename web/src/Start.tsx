import { useState } from "react";
import { useLocation } from "wouter";
import { api } from "./api";
import { Composer, type Draft } from "./Composer";
import { Header } from "./Header";
import { t } from "./texts";

/** The first message of each new chat, between its creation and the moment in which the chat is shown. */
export const firstMessages = new Map<string, Draft>();

export function Start({ onMenu, onCreated }: { onMenu: () => void; onCreated: () => void }) {
  const [, navigate] = useLocation();
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const start = async (draft: Draft): Promise<boolean> => {
    setBusy(true);
    setProblem("");
    try {
      const { id } = await api.create();
      firstMessages.set(id, draft);
      onCreated();
      navigate(`/s/${id}`);
      return true;
    } catch (error) {
      setProblem((error as Error).message);
      setBusy(false);
      return false;
    }
  };
  return (
    <>
      <Header title={t.newChat} onMenu={onMenu} />
      <div className="flex min-h-0 flex-1 flex-col items-center justify-center gap-6 overflow-y-auto px-4">
        <div className="text-center">
          <h2 className="text-2xl font-semibold tracking-tight">{t.welcome}</h2>
          <p className="mt-2 max-w-md text-sm text-muted-foreground">{t.welcomeText}</p>
        </div>
        <ul className="flex w-full max-w-2xl flex-col gap-2">
          {t.suggestions.map((text) => (
            <li key={text}>
              <button type="button" disabled={busy} onClick={() => void start({ text, files: [] })} className="w-full rounded-xl border bg-card px-4 py-2.5 text-left text-sm hover:bg-muted">
                {text}
              </button>
            </li>
          ))}
        </ul>
      </div>
      <Composer busy={false} disabled={busy} problem={problem} onSend={start} />
    </>
  );
}
