import { Check, ChevronRight, Wrench } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import type { ToolPart, ToolProgress } from "./messages";
import { duration, t } from "./texts";

// The text that the turn stores as the result of a call that a Stop has ended (`CANCELLED_CALL` of the server).
const CANCELLED = "Cancelled: ";

export function tookOf(metadata: unknown): number | undefined {
  return (metadata as { longhaul?: { duration_ms?: number } } | undefined)?.longhaul?.duration_ms;
}

/** Milliseconds from the first look until `ended`; undefined for what had ended by then. */
export function useMeasured(ended: boolean): number | undefined {
  const since = useRef(ended ? null : performance.now());
  const [measured, setMeasured] = useState<number>();
  useEffect(() => {
    if (ended && since.current !== null) setMeasured(performance.now() - since.current);
  }, [ended]);
  return measured;
}

export const hasEnded = (tool: ToolPart) => tool.state === "output-available" || tool.state === "output-error";

/** How a call stands, in words and for the eye. */
export function ToolState({ tool, running, measured }: { tool: ToolPart; running: boolean; measured?: number }) {
  const milliseconds = "callProviderMetadata" in tool ? (tookOf(tool.callProviderMetadata) ?? measured) : measured;
  if (tool.state === "output-error") {
    if (tool.errorText?.startsWith(CANCELLED)) return <span className="shrink-0 text-muted-foreground">{t.stopped}</span>;
    return <span className="shrink-0 text-danger">{t.failed}</span>;
  }
  if (tool.state === "output-available") {
    return <span className="shrink-0 text-muted-foreground">{milliseconds === undefined ? <Check size={14} aria-label={t.done} /> : duration(milliseconds)}</span>;
  }
  if (running) return <span className="spinner text-primary" role="img" aria-label={t.toolRunning} />;
  return <span className="shrink-0 text-muted-foreground">{t.toolStopped}</span>;
}

function preview(input: unknown): string {
  if (input === undefined || input === null) return "";
  const values = typeof input === "object" ? Object.values(input as object) : [input];
  return values.map((value) => (typeof value === "string" ? value : JSON.stringify(value))).join(", ");
}

function shownValue(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

/** One tool call: what ran, how long, how it ended; unfolded, what went in and what came out. */
export function ToolRow(props: { tool: ToolPart; name: string; running: boolean; waits?: boolean; progress?: ToolProgress }) {
  const { tool, name, running, waits, progress } = props;
  const measured = useMeasured(hasEnded(tool));
  return (
    <div className="rounded-lg border bg-card text-sm">
    <details className="group">
      <summary className="flex list-none items-center gap-2 px-3 py-2">
        <Wrench size={14} className="shrink-0 text-muted-foreground" aria-hidden />
        <span className="shrink-0 font-medium">{name}</span>
        <span className="min-w-0 flex-1 truncate font-mono text-xs text-muted-foreground">{preview(tool.input)}</span>
        {waits ? <span className="shrink-0 text-primary">{t.waitsForYou}</span> : <ToolState tool={tool} running={running} measured={measured} />}
        <ChevronRight size={15} className="shrink-0 text-muted-foreground transition-transform group-open:rotate-90" aria-hidden />
      </summary>
      <div className="flex flex-col gap-2 border-t px-3 py-2">
        <Value label={t.input} text={shownValue(tool.input)} />
        {tool.state === "output-available" && <Value label={t.output} text={shownValue(tool.output)} />}
        {tool.state === "output-error" && <Value label={t.output} text={tool.errorText ?? ""} danger={!tool.errorText?.startsWith(CANCELLED)} />}
      </div>
    </details>
    {running && progress && !hasEnded(tool) && <Progress progress={progress} />}
    </div>
  );
}

/** How far a running call is, as its tool reports. */
function Progress({ progress }: { progress: ToolProgress }) {
  const { text, done, total } = progress;
  return (
    <div className="flex items-center gap-3 px-3 py-1.5 text-xs text-muted-foreground" role="status">
      <span className="min-w-0 truncate">{text}</span>
      {typeof done === "number" && typeof total === "number" && total > 0 && (
        <progress className="h-1.5 flex-1 accent-(--primary)" value={done} max={total} aria-label={text || t.toolRunning} />
      )}
    </div>
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
