import { ChevronRight, CornerDownRight, Network } from "lucide-react";
import { useContext } from "react";
import { Link } from "wouter";
import { Markdown } from "./Markdown";
import { type Message, type SubSessionUpdate, type ToolPart, isTool, toolNameOf } from "./messages";
import { ReadOnly } from "./ReadOnly";
import { dollars, statusName, t } from "./texts";
import { ToolRow, ToolState, hasEnded, useMeasured } from "./Tool";

const TOOLS = new Set(["run_sub_session", "get_sub_session_result"]);

interface Result {
  sub_session_id?: string;
  status?: string;
  response?: string;
  elapsed_seconds?: number;
  usage?: { cost_microdollars?: number | null };
}

/** What a sub-session's tool has answered. */
function resultOf(tool: ToolPart): Result {
  if (tool.state !== "output-available") return {};
  if (typeof tool.output !== "string") return (tool.output ?? {}) as Result;
  try {
    return JSON.parse(tool.output) as Result;
  } catch {
    return {};
  }
}

/** How the sub-sessions of a conversation ended, by their ids: a delegation's own answer may only say "running". */
export function endingsOf(messages: Message[], updates: ReadonlyMap<string, SubSessionUpdate>): Map<string, string> {
  const endings = new Map<string, string>();
  for (const part of messages.flatMap((message) => message.parts)) {
    if (!isTool(part) || !TOOLS.has(toolNameOf(part))) continue;
    const { sub_session_id: id, status } = resultOf(part);
    if (id && status && status !== "running" && status !== "queued") endings.set(id, status);
  }
  for (const [id, update] of updates) if (update.event === "ended" && update.status) endings.set(id, update.status);
  return endings;
}

interface Props {
  tool: ToolPart;
  running: boolean;
  updates: ReadonlyMap<string, SubSessionUpdate>;
  endings: ReadonlyMap<string, string>;
}

/** A delegation: a card that leads to the chat of the sub-session. */
export function SubSession({ tool, running, updates, endings }: Props) {
  const readOnly = useContext(ReadOnly);
  const result = resultOf(tool);
  const live = [...updates.values()].find((update) => update.tool_call_id === tool.toolCallId || update.sub_session_id === result.sub_session_id);
  const id = live?.sub_session_id ?? result.sub_session_id;
  const measured = useMeasured(hasEnded(tool));
  if (id === undefined) return <ToolRow tool={tool} name={toolNameOf(tool)} running={running} />;
  const input = tool.input as { prompt?: string } | undefined;
  const status = endings.get(id) ?? live?.status ?? result.status;
  const cost = result.usage?.cost_microdollars;
  return (
    <section aria-label={t.subSession} className="rounded-xl border bg-card text-sm">
      <div className="flex items-center gap-2 px-3 py-2">
        <Network size={15} className="shrink-0 text-primary" aria-hidden />
        <span className="shrink-0 font-medium">{t.subSession}</span>
        <span className="min-w-0 flex-1 truncate text-muted-foreground">{live?.task ?? input?.prompt ?? ""}</span>
        {!readOnly && (
          <Link href={`/s/${id}`} className="button shrink-0 bg-background px-2.5 py-1 text-xs">
            <CornerDownRight size={13} aria-hidden /> {t.open}
          </Link>
        )}
      </div>
      <div className="flex items-center gap-2 border-t px-3 py-1.5 text-xs text-muted-foreground">
        <ToolState tool={tool} running={running} measured={measured} />
        <span>{statusName(status)}</span>
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
