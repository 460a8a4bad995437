/** Says that a turn has ended which nobody looks at: in the title of the tab, and by a notification where allowed. */

import { useSyncExternalStore } from "react";
import { t } from "./texts";

const KEY = "longhaul.notify";
const listeners = new Set<() => void>();

const canAsk = "Notification" in window;
const isOn = (): boolean => canAsk && Notification.permission === "granted" && localStorage.getItem(KEY) === "on";

export const notifications = {
  /** Whether this browser can show them at all. */
  possible: canAsk && Notification.permission !== "denied",
  toggle: async (): Promise<void> => {
    const wanted = !isOn() && (await Notification.requestPermission()) === "granted";
    localStorage.setItem(KEY, wanted ? "on" : "off");
    for (const listener of listeners) listener();
  },
};

export function useNotifications(): boolean {
  return useSyncExternalStore((listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, isOn);
}

/** Tell of a chat whose turn has ended. The title stands until the tab is looked at. */
export function tellEnded(id: string, title: string): void {
  if (document.visibilityState === "hidden") {
    const before = document.title;
    document.title = `✓ ${t.doneTitle} · ${title}`;
    const restore = () => {
      if (document.title.startsWith("✓")) document.title = before.replace(/^● /, "");
      document.removeEventListener("visibilitychange", restore);
    };
    document.addEventListener("visibilitychange", restore);
  }
  if (!isOn()) return;
  const shown = new Notification(t.doneTitle, { body: title, tag: id });
  shown.onclick = () => {
    window.focus();
    window.location.hash = `/s/${id}`;
    shown.close();
  };
}
