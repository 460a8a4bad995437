/** Which model answers the next messages, and how much it thinks. The choice stays in this browser. */

import { useSyncExternalStore } from "react";

const KEY = "longhaul.choice";
const TIERS = ["standard", "advanced"];
const MODES = ["fast", "extended_thinking"];

/** `model`: a tier, or a model of `GET /v1/models`. `thinking`: a mode, or an effort. `once`: for one message only. */
export interface Choice {
  model: string;
  thinking: string;
  once: boolean;
}

/** A choice as the fields of a message. */
interface ChoiceFields {
  tier?: string;
  model?: string;
  mode?: string;
  effort?: string;
}

function kept(): Choice {
  const [model, thinking] = (localStorage.getItem(KEY) ?? "").split(" ");
  return { model: model || "standard", thinking: thinking || "fast", once: false };
}

let current = kept();
const listeners = new Set<() => void>();

function change(next: Choice): void {
  current = next;
  if (!next.once) localStorage.setItem(KEY, `${next.model} ${next.thinking}`);
  for (const listener of listeners) listener();
}

export const choice = {
  tiers: TIERS,
  modes: MODES,
  get: (): Choice => current,
  set: (changes: Partial<Choice>) => change({ ...current, ...changes }),
  /** A message was sent: a choice for one message ends. */
  used: () => current.once && change(kept()),
  fields: (): ChoiceFields => ({
    ...(TIERS.includes(current.model) ? { tier: current.model } : { model: current.model }),
    ...(MODES.includes(current.thinking) ? { mode: current.thinking } : { effort: current.thinking }),
  }),
};

export function useChoice(): Choice {
  return useSyncExternalStore((listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, choice.get);
}
