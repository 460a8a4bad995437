/** Stored rows as the messages that a stream of the same turns would have built. */

import type { UIMessage } from "ai";
import type { Row, SessionPage } from "./api";

export interface SubSessionUpdate {
  event: "started" | "progress" | "ended" | "detached";
  sub_session_id: string;
  tool_call_id?: string;
  status?: string;
  round?: number;
  tool?: string;
  task?: string;
}

/** Our own data parts in a stream. */
export type DataParts = {
  progress: { round: number | null; status: string; retrying_in?: number; reason?: string };
  usage: { cost_microdollars: number | null; prompt_tokens: number; completion_tokens: number };
  "follow-up": { message_id: string; round: number | null };
  "sub-session": SubSessionUpdate;
  voided: { ids: string[]; round?: number };
  title: { title: string };
  compaction: { message_id: string; round: number | null };
};

export interface Metadata {
  turnId?: string;
  error?: string;
  stopped?: boolean;
}

export type Message = UIMessage<Metadata, DataParts>;
type Part = Message["parts"][number];

/** How long a part of a stored turn took, kept where the AI SDK keeps what a provider says of a part. */
export const took = (row: Row) =>
  row.duration_ms === null ? undefined : { longhaul: { duration_ms: row.duration_ms } };

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A new answer, which begins with this row. */
function answerTo(messages: Message[], row: Row): Message {
  const turnId = row.turn_id ?? undefined;
  const answer: Message = { id: `${row.turn_id}-${row.sequence}`, role: "assistant", parts: [], metadata: { turnId } };
  messages.push(answer);
  return answer;
}

/** The messages of a page. Of a running turn only what was sent: its stream tells the rest from its start. */
export function messagesOf(page: SessionPage, rows: Row[] = page.messages): Message[] {
  const messages: Message[] = [];
  let answer: Message | null = null;
  const tools = new Map<string, { message: Message; index: number }>();
  const runningTurn = page.active_turn?.turn_id;
  let runningHasBegun = false;
  for (const row of rows) {
    if (row.turn_id !== null && row.turn_id === runningTurn) {
      if (row.role !== "user") runningHasBegun = true;
      if (runningHasBegun) continue;
    }
    if (row.role === "user") {
      answer = null;
      messages.push({ id: row.client_message_id ?? row.id, role: "user", parts: [{ type: "text", text: row.content }] });
      continue;
    }
    if (row.role === "system") {
      if (row.kind === "stop" && answer) answer.metadata = { ...answer.metadata, stopped: true };
      if (row.kind === "summary") {
        answer ??= answerTo(messages, row);
        answer.parts.push({ type: "data-compaction", data: { message_id: row.id, round: row.round } });
      }
      continue;
    }
    if (answer === null || answer.metadata?.turnId !== row.turn_id) {
      answer = answerTo(messages, row);
    }
    if (row.role === "tool") {
      const found = tools.get(row.tool_call_id ?? "");
      if (found === undefined) continue;
      const call = found.message.parts[found.index] as Extract<Part, { type: "dynamic-tool" }>;
      const { type, toolName, toolCallId, input } = call;
      found.message.parts[found.index] = row.is_error
        ? { type, toolName, toolCallId, input, state: "output-error", errorText: row.content, callProviderMetadata: took(row) }
        : { type, toolName, toolCallId, input, state: "output-available", output: parsed(row.content), callProviderMetadata: took(row) };
      continue;
    }
    if (row.is_error) {
      answer.metadata = { ...answer.metadata, error: row.content };
      continue;
    }
    if (row.content) {
      answer.parts.push({
        type: row.role === "reasoning" ? "reasoning" : "text",
        text: row.content,
        state: "done",
        providerMetadata: row.role === "reasoning" ? took(row) : undefined,
      });
    }
    for (const made of row.tool_calls ?? []) {
      tools.set(made.id, { message: answer, index: answer.parts.length });
      answer.parts.push({
        type: "dynamic-tool",
        toolName: made.function.name,
        toolCallId: made.id,
        state: "input-available",
        input: parsed(made.function.arguments),
      });
    }
  }
  return messages;
}

/** A conversation as a Markdown document. */
export function markdownOf(title: string, messages: Message[], names: { user: string; assistant: string }): string {
  const lines = [`# ${title}`];
  for (const message of messages) {
    const text = message.parts.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n\n");
    if (text.trim()) lines.push(`## ${message.role === "user" ? names.user : names.assistant}`, text);
  }
  return `${lines.join("\n\n")}\n`;
}
