/** The messages of a chat, as the AI SDK keeps them, and what this page reads out of them. */

import { type UIMessage, getToolName, isToolUIPart } from "ai";
import type { FilePart } from "./files";

export interface SubSessionUpdate {
  event: "started" | "progress" | "ended" | "detached";
  sub_session_id: string;
  tool_call_id?: string;
  status?: string;
  round?: number;
  tool?: string;
  task?: string;
}

/** A tool call that waits for a person (`waiting`), or does no longer. */
export interface ApprovalUpdate {
  approval_id: string;
  tool_call_id: string;
  tool_name: string;
  kind: "approval" | "question" | "client_tool";
  status: string;
}

/** How far a running tool call is, in its own words and units. */
export interface ToolProgress {
  text?: string;
  done?: number | null;
  total?: number | null;
}

export interface PlanStep {
  step: string;
  status: "pending" | "in_progress" | "completed";
}

/** What streams tell beside the messages, by the ids of sub-sessions and of tool calls. */
export interface Live {
  subSessions: ReadonlyMap<string, SubSessionUpdate>;
  approvals: ReadonlyMap<string, ApprovalUpdate>;
  progress: ReadonlyMap<string, ToolProgress>;
}

/** Our own data parts. Streams send them beside the messages; a message keeps `plan` and `compaction` alone. */
export type DataParts = {
  progress: { round: number | null; status: string; retrying_in?: number; reason?: string };
  "follow-up": { message_id: string; round: number | null };
  "sub-session": SubSessionUpdate;
  approval: ApprovalUpdate;
  "tool-progress": ToolProgress;
  plan: { plan: PlanStep[] };
  title: { title: string };
  compaction: { message_id: string; round: number | null };
};

export interface Metadata {
  status?: "cancelled" | "failed";
  error?: string;
  edited?: boolean; // there are other versions of this message
}

export type Message = UIMessage<Metadata, DataParts>;
export type Part = Message["parts"][number];
export type ToolPart = Extract<Part, { toolCallId: string }>;

export const isTool = (part: Part): part is ToolPart => isToolUIPart(part);
export const toolNameOf = (tool: ToolPart): string => getToolName(tool);

/** The turn of an answer. A turn answers with one message, and with another one for each follow-up that it takes. */
export const turnOf = (message: Message): string => message.id.split(":")[0]!;

export function textOf(message: Message): string {
  return message.parts.flatMap((part) => (part.type === "text" && part.text.trim() ? [part.text] : [])).join("\n\n");
}

export const filesOf = (message: Message): FilePart[] => message.parts.filter((part) => part.type === "file");

/** How much of an answer a message holds, to compare two states of the same message. */
export function weightOf(message: Message): number {
  return message.parts.reduce((sum, part) => sum + 1 + ("text" in part ? part.text.length : 0), 0);
}

/** A conversation as a Markdown document. */
export function markdownOf(title: string, messages: Message[], names: { user: string; assistant: string }): string {
  const lines = [`# ${title}`];
  for (const message of messages) {
    const text = textOf(message);
    if (text) lines.push(`## ${message.role === "user" ? names.user : names.assistant}`, text);
  }
  return `${lines.join("\n\n")}\n`;
}
