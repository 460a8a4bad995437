import { Check, ChevronRight, Copy, CornerDownRight, Network, Wrench } from "lucide-react";
import { memo, useEffect, useRef, useState } from "react";
import { Link } from "wouter";
import type { Turn } from "./api";
import type { Message, SubSessionUpdate } from "./conversation";
import { Markdown } from "./Markdown";
import { dollars, duration, t } from "./texts";

type Part = Message["parts"][number];
type ToolPart = Extract<Part, { type: "dynamic-tool" }>;

export function UserBubble({ text, waiting }: { text: string; waiting?: boolean }) {
  return (
    <div className="flex justify-end">
      <div
        className={`max-w-[85%] rounded-2xl rounded-br-md px-4 py-2 whitespace-pre-wrap [overflow-wrap:anywhere] ${waiting ? "border border-dashed text-muted-foreground" : "bg-bubble"}`}
      >
        <span className="sr-only">{t.you}: </span>
        <span data-from="user">{text}</span>
        {waiting && (
          <span className="mt-1 flex items-center gap-1.5 text-xs">
            <span className="spinner size-3" aria-hidden /> {t.waiting}
          </span>
        )}
      </div>
    </div>
  );
}

interface Props {
  message: Message;
  streaming: boolean;
  followUps: ReadonlyMap<string, string>;
  subSessions: ReadonlyMap<string, SubSessionUpdate>;
  endings: ReadonlyMap<string, string>;
  turn?: Turn;
}

/** One message. An answer's parts come in the order in which they were made; follow-ups stand where the turn took them. */
export const MessageView = memo(function MessageView({ message, streaming, followUps, subSessions, endings, turn }: Props) {
  if (message.role === "user") {
    const text = message.parts.map((part) => (part.type === "text" ? part.text : "")).join("");
    return <UserBubble text={text} />;
  }
  const shown = visible(message.parts);
  const said = shown.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n\n");
  const delegations = new Map(
    message.parts.flatMap((part) =>
      part.type === "data-sub-session" && part.data.tool_call_id ? [[part.data.tool_call_id, part.data] as const] : [],
    ),
  );
  const last = shown.at(-1);
  return (
    <div className="flex flex-col gap-3" aria-busy={streaming}>
      <span className="sr-only">{t.copilot}:</span>
      {shown.map((part, index) => (
        <PartView
          key={index}
          part={part}
          streaming={streaming && part === last}
          running={streaming}
          followUps={followUps}
          subSessions={subSessions}
          endings={endings}
          delegations={delegations}
        />
      ))}
      {message.metadata?.error && (
        <p role="alert" className="rounded-lg border border-danger px-3 py-2 text-sm text-danger">
          {message.metadata.error}
        </p>
      )}
      {message.metadata?.stopped && <p className="text-sm text-muted-foreground">{t.stopped}</p>}
      {!streaming && <Footer text={said} turn={turn} />}
    </div>
  );
});

/** The parts without those that a later attempt of the model call has voided, and without those that show nothing. */
function visible(parts: Part[]): Part[] {
  const kept: Part[] = [];
  for (const part of parts) {
    if (part.type === "data-voided") {
      // The voided parts are the newest ones: an attempt is voided before the next one begins.
      for (let left = part.data.ids.length, at = kept.length - 1; left > 0 && at >= 0; at--) {
        if (kept[at]!.type === "data-follow-up") break;
        kept.splice(at, 1);
        left--;
      }
    } else if (part.type === "text" || part.type === "reasoning" ? part.text.trim() : isTool(part) || SHOWN_DATA.has(part.type)) {
      kept.push(part);
    }
  }
  return kept;
}

const SHOWN_DATA = new Set(["data-follow-up", "data-compaction"]);

function isTool(part: Part): boolean {
  return part.type === "dynamic-tool" || part.type.startsWith("tool-");
}

const SUB_SESSION_TOOLS = new Set(["run_sub_session", "get_sub_session_result"]);

function nameOf(part: Part): string {
  return part.type === "dynamic-tool" ? part.toolName : part.type.slice("tool-".length);
}

function PartView(props: {
  part: Part;
  streaming: boolean;
  running: boolean;
  followUps: ReadonlyMap<string, string>;
  subSessions: ReadonlyMap<string, SubSessionUpdate>;
  endings: ReadonlyMap<string, string>;
  delegations: ReadonlyMap<string, SubSessionUpdate>;
}) {
  const { part } = props;
  if (part.type === "text") {
    return (
      <div data-from="copilot">
        <Markdown text={part.text} streaming={props.streaming} />
      </div>
    );
  }
  if (part.type === "reasoning") return <Reasoning text={part.text} streaming={props.streaming} took={tookOf(part.providerMetadata)} />;
  if (part.type === "data-follow-up") return <UserBubble text={props.followUps.get(part.data.message_id) ?? "…"} />;
  if (part.type === "data-compaction") {
    return <p className="border-y py-1 text-center text-xs text-muted-foreground">{t.compacted}</p>;
  }
  if (!isTool(part)) return null;
  const tool = part as ToolPart;
  const name = nameOf(part);
  const started = props.delegations.get(tool.toolCallId);
  return name === "run_sub_session" ? (
    <SubSession
      tool={tool}
      name={name}
      running={props.running}
      started={started}
      live={started && props.subSessions.get(started.sub_session_id)}
      ended={props.endings.get(started?.sub_session_id ?? resultOf(tool).sub_session_id ?? "")}
    />
  ) : (
    <ToolRow tool={tool} name={name} running={props.running} />
  );
}

function tookOf(metadata: unknown): number | undefined {
  return (metadata as { longhaul?: { duration_ms?: number } } | undefined)?.longhaul?.duration_ms;
}

/** Milliseconds from the first look until `ended`; undefined for what had ended by then. */
function useMeasured(ended: boolean): number | undefined {
  const since = useRef(ended ? null : performance.now());
  const [measured, setMeasured] = useState<number>();
  useEffect(() => {
    if (ended && since.current !== null) setMeasured(performance.now() - since.current);
  }, [ended]);
  return measured;
}

function Reasoning({ text, streaming, took }: { text: string; streaming: boolean; took?: number }) {
  const measured = useMeasured(!streaming);
  const milliseconds = took ?? measured;
  return (
    <details className="group text-sm text-muted-foreground">
      <summary className="flex w-fit list-none items-center gap-1.5 rounded hover:text-foreground">
        <ChevronRight size={15} className="transition-transform group-open:rotate-90" aria-hidden />
        {streaming ? (
          <>
            {t.thinking} <span className="spinner size-3" aria-hidden />
          </>
        ) : milliseconds === undefined ? (
          t.thought
        ) : (
          t.thoughtFor(duration(milliseconds))
        )}
      </summary>
      <div className="mt-1 ml-2 border-l-2 pl-3 whitespace-pre-wrap [overflow-wrap:anywhere]">{text}</div>
    </details>
  );
}

function preview(input: unknown): string {
  if (input === undefined || input === null) return "";
  const values = typeof input === "object" ? Object.values(input as object) : [input];
  return values.map((value) => (typeof value === "string" ? value : JSON.stringify(value))).join(", ");
}

function shownValue(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

/** How a call stands, in words and for the eye. */
function ToolState({ tool, running, measured }: { tool: ToolPart; running: boolean; measured?: number }) {
  const milliseconds = "callProviderMetadata" in tool ? (tookOf(tool.callProviderMetadata) ?? measured) : measured;
  if (tool.state === "output-error") return <span className="shrink-0 text-danger">{t.failed}</span>;
  if (tool.state === "output-available") {
    return <span className="shrink-0 text-muted-foreground">{milliseconds === undefined ? <Check size={14} aria-label={t.done} /> : duration(milliseconds)}</span>;
  }
  if (running) return <span className="spinner text-primary" role="img" aria-label={t.toolRunning} />;
  return <span className="shrink-0 text-muted-foreground">{t.toolStopped}</span>;
}

const ended = (tool: ToolPart) => tool.state === "output-available" || tool.state === "output-error";

function ToolRow({ tool, name, running }: { tool: ToolPart; name: string; running: boolean }) {
  const measured = useMeasured(ended(tool));
  return (
    <details className="group rounded-lg border bg-card text-sm">
      <summary className="flex list-none items-center gap-2 px-3 py-2">
        <Wrench size={14} className="shrink-0 text-muted-foreground" aria-hidden />
        <span className="shrink-0 font-medium">{name}</span>
        <span className="min-w-0 flex-1 truncate font-mono text-xs text-muted-foreground">{preview(tool.input)}</span>
        <ToolState tool={tool} running={running} measured={measured} />
        <ChevronRight size={15} className="shrink-0 text-muted-foreground transition-transform group-open:rotate-90" aria-hidden />
      </summary>
      <div className="flex flex-col gap-2 border-t px-3 py-2">
        <Value label={t.input} text={shownValue(tool.input)} />
        {tool.state === "output-available" && <Value label={t.output} text={shownValue(tool.output)} />}
        {tool.state === "output-error" && <Value label={t.failed} text={tool.errorText ?? ""} danger />}
      </div>
    </details>
  );
}

function Value({ label, text, danger }: { label: string; text: string; danger?: boolean }) {
  return (
    <div>
      <div className="text-xs text-muted-foreground">{label}</div>
      <pre tabIndex={0} className={`max-h-80 overflow-auto rounded-md bg-muted p-2 text-xs whitespace-pre-wrap [overflow-wrap:anywhere] ${danger ? "text-danger" : ""}`}>
        {text}
      </pre>
    </div>
  );
}

interface SubSessionResult {
  sub_session_id?: string;
  status?: string;
  response?: string;
  elapsed_seconds?: number;
  usage?: { cost_microdollars?: number | null };
}

/** What a sub-session's tool has answered; a live stream carries it as the text that the model gets. */
function resultOf(tool: ToolPart): SubSessionResult {
  if (tool.state !== "output-available") return {};
  if (typeof tool.output !== "string") return (tool.output ?? {}) as SubSessionResult;
  try {
    return JSON.parse(tool.output) as SubSessionResult;
  } catch {
    return {};
  }
}

/** How the sub-sessions of a conversation ended, by their ids: a delegation's own answer may only say "running". */
export function endingsOf(messages: Message[]): Map<string, string> {
  const endings = new Map<string, string>();
  for (const part of messages.flatMap((message) => message.parts)) {
    if (part.type === "data-sub-session" && part.data.event === "ended" && part.data.status) {
      endings.set(part.data.sub_session_id, part.data.status);
    } else if (isTool(part) && SUB_SESSION_TOOLS.has(nameOf(part))) {
      const { sub_session_id: id, status } = resultOf(part as ToolPart);
      if (id && status && status !== "running" && status !== "queued") endings.set(id, status);
    }
  }
  return endings;
}

function SubSession(props: {
  tool: ToolPart;
  name: string;
  running: boolean;
  started?: SubSessionUpdate;
  live?: SubSessionUpdate;
  ended?: string; // how it ended, as a later look at it said
}) {
  const { tool, started, live } = props;
  const result = resultOf(tool);
  const id = started?.sub_session_id ?? result.sub_session_id;
  const measured = useMeasured(ended(tool));
  if (id === undefined) return <ToolRow tool={tool} name={props.name} running={props.running} />;
  const input = tool.input as { prompt?: string } | undefined;
  const status = props.ended ?? live?.status ?? result.status ?? started?.status;
  const cost = result.usage?.cost_microdollars;
  return (
    <section aria-label={t.subSession} className="rounded-xl border bg-card text-sm">
      <div className="flex items-center gap-2 px-3 py-2">
        <Network size={15} className="shrink-0 text-primary" aria-hidden />
        <span className="shrink-0 font-medium">{t.subSession}</span>
        <span className="min-w-0 flex-1 truncate text-muted-foreground">{started?.task ?? input?.prompt ?? ""}</span>
        <Link href={`/s/${id}`} className="button shrink-0 bg-background px-2.5 py-1 text-xs">
          <CornerDownRight size={13} aria-hidden /> {t.open}
        </Link>
      </div>
      <div className="flex items-center gap-2 border-t px-3 py-1.5 text-xs text-muted-foreground">
        <ToolState tool={tool} running={props.running} measured={measured} />
        <span>{status}</span>
        {live?.status === "running" && live.round !== undefined && <span>{t.round(live.round)}</span>}
        {live?.status === "running" && live.tool && <span className="font-mono">{live.tool}</span>}
        {typeof cost === "number" && <span>{dollars(cost)}</span>}
      </div>
      {result.response && (
        <details className="group border-t">
          <summary className="flex list-none items-center gap-1.5 px-3 py-1.5 text-xs text-muted-foreground">
            <ChevronRight size={14} className="transition-transform group-open:rotate-90" aria-hidden /> {t.output}
          </summary>
          <div className="px-3 pb-2">
            <Markdown text={result.response} streaming={false} />
          </div>
        </details>
      )}
    </section>
  );
}

function Footer({ text, turn }: { text: string; turn?: Turn }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), 2000);
    return () => clearTimeout(timer);
  }, [copied]);
  return (
    <div className="-mt-1 flex min-h-7 flex-wrap items-center gap-3 text-xs text-muted-foreground">
      {text && navigator.clipboard && (
        <button type="button" className="inline-flex items-center gap-1 rounded hover:text-foreground" onClick={() => void navigator.clipboard.writeText(text).then(() => setCopied(true))}>
          {copied ? <Check size={13} aria-hidden /> : <Copy size={13} aria-hidden />} {copied ? t.copied : t.copy}
        </button>
      )}
      {turn && turn.duration_ms !== null && <span>{duration(turn.duration_ms)}</span>}
      {turn && <span title={turn.model}>{t.round(turn.rounds)}</span>}
      {turn && turn.usage.prompt_tokens + turn.usage.completion_tokens > 0 && (
        <span>
          {(turn.usage.prompt_tokens + turn.usage.completion_tokens).toLocaleString(navigator.language)} {t.tokens}
        </span>
      )}
      {turn && turn.usage.cost_microdollars !== null && <span title={t.cost}>{dollars(turn.usage.cost_microdollars)}</span>}
    </div>
  );
}
