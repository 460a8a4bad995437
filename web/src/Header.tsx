import { Menu } from "lucide-react";
import type { ReactNode } from "react";
import { t } from "./texts";

export function Header({ title, onMenu, before, children }: { title: string; onMenu: () => void; before?: ReactNode; children?: ReactNode }) {
  return (
    <header className="flex h-14 shrink-0 items-center gap-1 border-b px-3 md:px-4">
      <button type="button" className="icon-button md:hidden" onClick={onMenu} aria-label={t.menu}>
        <Menu size={20} />
      </button>
      {before}
      <h1 className="min-w-0 flex-1 truncate text-sm font-semibold">{title}</h1>
      {children}
    </header>
  );
}
