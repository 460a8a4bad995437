import type { ReactNode } from "react";
import { Header } from "./Header";

/** A page that is not a chat. */
export function Page({ title, onMenu, problem, children }: { title: string; onMenu: () => void; problem: string; children: ReactNode }) {
  return (
    <>
      <Header title={title} onMenu={onMenu} />
      <div className="min-h-0 flex-1 overflow-y-auto">
        <div className="mx-auto flex max-w-4xl flex-col gap-6 p-4 md:p-6">
          {problem && (
            <p role="alert" className="rounded-lg border border-danger px-3 py-2 text-sm text-danger">
              {problem}
            </p>
          )}
          {children}
        </div>
      </div>
    </>
  );
}
