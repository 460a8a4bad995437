/** The HTTP API, typed as far as the page uses it. The page knows nothing of the server but this. */

import { choice } from "./choice";
import type { FilePart } from "./files";
import type { Message } from "./messages";

export type TurnStatus = "running" | "waiting_for_approval" | "completed" | "failed" | "cancelled";

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  cost_microdollars: number | null;
}

export interface Session {
  id: string;
  title: string | null;
  parent_session_id: string | null;
  root_session_id: string | null;
  workflow_url?: string | null; // where operators open it in Temporal
  running?: boolean; // in lists
  created_at: string;
  updated_at: string;
}

export interface WaitingMessage {
  id: string;
  content: string;
  files?: FilePart[];
}

/** How a session stands; of its rows, the newest alone is asked for. */
export interface SessionState extends Session {
  messages: { sequence: number }[];
  active_turn: { turn_id: string; status: TurnStatus } | null;
  pending: { messages: WaitingMessage[]; count: number };
}

/** A page of a conversation; `earlier` is the address of the page before it. */
export interface History {
  messages: Message[];
  earlier: string | null;
}

/** One of the texts that a message had. `ui_messages`: it and what followed it, if it was replaced. */
export interface Version {
  message_id: string;
  content: string;
  current: boolean;
  created_at: string;
  ui_messages: Message[];
}

export interface Turn {
  turn_id: string;
  status: TurnStatus;
  started_at: string;
  duration_ms: number | null;
  model: string;
  rounds: number;
  usage: Usage;
  error: string | null;
}

/** A model call or a tool call that has ended, or a follow-up, which takes no time. */
export interface Span {
  kind: "model" | "tool" | "follow_up";
  name: string;
  round: number | null;
  started_at: string;
  duration_ms: number;
  is_error: boolean;
}

export interface Timeline {
  started_at: string;
  ended_at: string | null;
  spans: Span[];
}

/** A read-only link. */
export interface Share {
  id: string;
  url: string;
  expires_at: string | null;
}

export interface SharedSession {
  title: string | null;
  messages: { sequence: number }[];
  active_turn: { turn_id: string } | null;
}

/** A message that is sent at certain times: by `cron`, or every so many seconds. */
export interface Schedule {
  id: string;
  message: string;
  cron: string | null;
  every_seconds: number | null;
  time_zone: string;
  session_id: string | null;
  overlap: "skip" | "queue" | "allow";
  paused: boolean;
}

export interface ScheduleRun {
  id: string;
  status: "delivered" | "refused";
  reason: string | null;
  session_id: string | null;
  turn_status: TurnStatus | null;
  scheduled_at: string;
}

/** What one group has used. */
export interface Total {
  user: string | null;
  model: string | null;
  day: string | null;
  calls: number;
  prompt_tokens: number;
  completion_tokens: number;
  cost_microdollars: number | null;
}

export interface WindowAmounts {
  used_microdollars: number;
  limit_microdollars: number | null;
  percent_used: number | null;
}

/** A user as admins see one. */
export interface Account {
  user_id: string;
  email: string | null;
  tier: string;
  set_tier: string | null;
  credits: number;
  daily: WindowAmounts;
  weekly: WindowAmounts;
}

/** A tier or a model that a message may choose. `abilities`: null where nothing is known. */
export interface Model {
  id: string;
  model: string;
  abilities: { efforts: string[] } | null;
}

/** How much of a limit is used, in percent; 100 from the limit on. */
export interface Limit {
  percent_used: number;
  resets_at: string;
}

export interface Limits {
  daily: Limit | null;
  weekly: Limit | null;
}

export interface TreeNode {
  session_id: string;
  title: string | null;
  depth: number;
  status: TurnStatus | null;
  turn_id: string | null;
  progress: {
    round: number;
    tools_running: string[];
    tools_done: number;
    started_at: string;
    duration_ms: number | null;
    error: string | null;
  } | null;
  usage: Usage;
  total_usage: Usage;
  children: TreeNode[];
}

/** An error of the API, in the words of its problem document. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

const PAGE_ROWS = 60;
const TOKEN = "longhaul.token";

/** The access token of this browser tab, for servers that ask for one. */
export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (value: string) => sessionStorage.setItem(TOKEN, value),
};

export function authorization(): Record<string, string> {
  const value = token.get();
  return value ? { authorization: `Bearer ${value}` } : {};
}

/** What a problem document says, or the status where the answer is none. */
export async function problemOf(response: Response): Promise<ApiError> {
  const problem = (await response.json().catch(() => null)) as { title?: string; detail?: string } | null;
  return new ApiError(response.status, problem?.detail ?? problem?.title ?? `${response.status} ${response.statusText}`);
}

async function request(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const response = await fetch(path, {
    method,
    headers: { ...authorization(), ...(body === undefined ? {} : { "content-type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
  });
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function call<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const response = await request(method, `/v1${path}`, body, signal);
  return (response.status === 204 ? undefined : await response.json()) as T;
}

async function historyAt(path: string): Promise<History> {
  const response = await request("GET", path);
  const next = /<([^>]+)>; rel="next"/.exec(response.headers.get("link") ?? "");
  return { messages: (await response.json()) as Message[], earlier: next?.[1] ?? null };
}

export const api = {
  sessions: (cursor: string | null, text = "", signal?: AbortSignal) =>
    call<{ sessions: Session[]; next_cursor: string | null }>(
      "GET",
      `/sessions?${new URLSearchParams({ limit: "50", ...(cursor ? { cursor } : {}), ...(text ? { q: text } : {}) })}`,
      undefined,
      signal,
    ),
  create: () => call<Session>("POST", "/sessions", {}),
  rename: (id: string, title: string) => call<Session>("PATCH", `/sessions/${id}`, { title }),
  remove: (id: string) => call<void>("DELETE", `/sessions/${id}`),
  session: (id: string) => call<SessionState>("GET", `/sessions/${id}?limit=1`),
  history: (id: string) => historyAt(`/v1/sessions/${id}/ui-messages?limit=${PAGE_ROWS}&details=true`),
  historyAt,
  versions: (id: string, messageId: string) => call<{ versions: Version[] }>("GET", `/sessions/${id}/messages/${messageId}/versions`),
  followUp: (id: string, message: string, messageId: string, fileIds: string[], interrupt: boolean) =>
    call<{ turn_id: string; disposition: "started" | "queued" }>("POST", `/sessions/${id}/messages`, {
      message,
      message_id: messageId,
      file_ids: fileIds,
      on_busy: interrupt ? "interrupt" : "join",
      ...choice.fields(),
    }),
  stop: (id: string) => call<{ cancelled: boolean }>("POST", `/sessions/${id}/cancel`),
  turns: (id: string, signal?: AbortSignal) => call<{ turns: Turn[] }>("GET", `/sessions/${id}/turns?limit=200`, undefined, signal),
  decide: (approvalId: string, decision: object) => call<unknown>("POST", `/approvals/${approvalId}`, decision),
  retry: (id: string, turnId: string) => call<unknown>("POST", `/sessions/${id}/turns/${turnId}/retry`),
  timeline: (id: string, turnId: string) => call<Timeline>("GET", `/sessions/${id}/turns/${turnId}/timeline`),
  running: () => call<{ sessions: Session[] }>("GET", "/sessions?running=true&limit=200"),
  shares: (id: string) => call<{ data: Share[] }>("GET", `/sessions/${id}/shares`),
  share: (id: string, seconds: number | null) => call<Share>("POST", `/sessions/${id}/shares`, seconds === null ? {} : { expires_in: seconds }),
  revoke: (id: string, shareId: string) => call<void>("DELETE", `/sessions/${id}/shares/${shareId}`),
  shared: (link: string) => call<SharedSession>("GET", `/shared/${link}?limit=1`),
  sharedHistory: (link: string) => historyAt(`/v1/shared/${link}/ui-messages?limit=${PAGE_ROWS}&details=true`),
  schedules: () => call<{ data: Schedule[] }>("GET", "/schedules?limit=200"),
  schedule: (id: string) => call<Schedule & { next_runs: string[] | null }>("GET", `/schedules/${id}`),
  addSchedule: (body: object) => call<Schedule>("POST", "/schedules", body),
  changeSchedule: (id: string, body: object) => call<Schedule>("PATCH", `/schedules/${id}`, body),
  runSchedule: (id: string) => call<unknown>("POST", `/schedules/${id}/trigger`),
  removeSchedule: (id: string) => call<void>("DELETE", `/schedules/${id}`),
  scheduleRuns: (id: string) => call<{ data: ScheduleRun[] }>("GET", `/schedules/${id}/runs?limit=20`),
  isAdmin: () =>
    request("GET", "/v1/admin/usage?by=day&since=9000-01-01").then(
      () => true,
      () => false,
    ),
  totals: (by: "user" | "model" | "day", since: string) => call<{ rows: Total[] }>("GET", `/admin/usage?${new URLSearchParams({ by, since })}`),
  accounts: (name: "user_id" | "email", value: string) => call<{ accounts: Account[] }>("GET", `/admin/usage/users?${new URLSearchParams({ [name]: value })}`),
  setTier: (user: string, tier: string | null) => call<Account>("POST", "/admin/usage/tier", { user_id: user, tier }),
  resetWindow: (user: string, window: "day" | "week") => call<Account>("POST", "/admin/usage/reset", { user_id: user, window }),
  models: () => call<{ data: Model[] }>("GET", "/models"),
  usage: (signal: AbortSignal) => call<Limits>("GET", "/usage", undefined, signal),
  tree: (id: string, signal?: AbortSignal) => call<TreeNode>("GET", `/sessions/${id}/tree`, undefined, signal),
};

/** An id for a message. `crypto.randomUUID` exists only on https and localhost. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
