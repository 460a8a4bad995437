/** Which model answers the next messages, and whether it thinks first. The choice stays in this browser. */

import { useSyncExternalStore } from "react";

const VALUES = { tier: ["standard", "advanced"], mode: ["fast", "extended_thinking"] } as const;
const KEY = "longhaul.choice";

export interface Choice {
  tier: (typeof VALUES.tier)[number];
  mode: (typeof VALUES.mode)[number];
}

function kept(): Choice {
  const parts = (localStorage.getItem(KEY) ?? "").split(" ");
  return {
    tier: VALUES.tier.find((value) => value === parts[0]) ?? "standard",
    mode: VALUES.mode.find((value) => value === parts[1]) ?? "fast",
  };
}

let current = kept();
const listeners = new Set<() => void>();

export const choice = {
  values: VALUES,
  get: (): Choice => current,
  set: (changes: Partial<Choice>) => {
    current = { ...current, ...changes };
    localStorage.setItem(KEY, `${current.tier} ${current.mode}`);
    for (const listener of listeners) listener();
  },
};

export function useChoice(): Choice {
  return useSyncExternalStore((listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, choice.get);
}
