import { useEffect, useState } from "react";
import { type Span, type Timeline as Data, api } from "./api";
import { Dialog } from "./Dialog";
import { duration, t } from "./texts";

const LOOK_EVERY_MS = 2000;
const WAIT_SHOWN = 0.02; // of the whole: shorter waits are only in the sum

/** A bar: what the server tells of, or the wait between two of those. */
type Row = Omit<Span, "kind"> & { kind: Span["kind"] | "wait" };
const COLOURS: Record<Row["kind"], string> = { model: "bg-primary", tool: "bg-amber-600", follow_up: "bg-foreground", wait: "bg-muted-foreground/50" };

/** What a turn has spent its time on: a bar for each model call and each tool call. */
export function Timeline(props: { sessionId: string; turnId: string; workflowUrl?: string | null; onClose: () => void }) {
  const { sessionId, turnId, workflowUrl, onClose } = props;
  const [data, setData] = useState<Data | null>(null);
  const [problem, setProblem] = useState("");
  const runs = data !== null && data.ended_at === null;
  useEffect(() => {
    const look = () => api.timeline(sessionId, turnId).then(setData, (error: Error) => setProblem(error.message));
    void look();
    const timer = setInterval(() => runs && void look(), LOOK_EVERY_MS);
    return () => clearInterval(timer);
  }, [sessionId, turnId, runs]);
  return (
    <Dialog title={t.timeline} description={t.timelineText} open onOpenChange={onClose} wide>
      {problem && (
        <p role="alert" className="text-sm text-danger">
          {problem}
        </p>
      )}
      {data && <Bars data={data} />}
      {workflowUrl && (
        <a href={workflowUrl} target="_blank" rel="noopener noreferrer" className="w-fit text-sm underline">
          {t.openInTemporal}
        </a>
      )}
    </Dialog>
  );
}

function Bars({ data }: { data: Data }) {
  const begin = Date.parse(data.started_at);
  const end = data.ended_at === null ? Date.now() : Date.parse(data.ended_at);
  const whole = Math.max(1, end - begin);
  const percent = (milliseconds: number) => Math.min(100, Math.max(0, (milliseconds / whole) * 100));
  const waits = waitsBetween(data.spans, begin, end);
  const waited = waits.reduce((sum, wait) => sum + wait.duration_ms, 0);
  const rows = [...data.spans, ...waits.filter((wait) => wait.duration_ms >= WAIT_SHOWN * whole)].toSorted((a, b) => Date.parse(a.started_at) - Date.parse(b.started_at));
  return (
    <>
      <ol className="flex max-h-[60vh] flex-col gap-1 overflow-y-auto text-xs" tabIndex={0} aria-label={t.timeline}>
        {rows.map((span, index) => {
          const from = percent(Date.parse(span.started_at) - begin);
          return (
            <li key={index} className="grid grid-cols-[minmax(6rem,9rem)_1fr_4rem] items-center gap-2">
              <span className={`truncate ${span.is_error ? "text-danger" : ""}`}>{nameOf(span)}</span>
              <span className="relative h-3 rounded bg-muted" aria-hidden>
                <span className={`absolute inset-y-0 min-w-[3px] rounded ${COLOURS[span.kind]}`} style={{ left: `${from}%`, width: `${Math.min(100 - from, percent(span.duration_ms))}%` }} />
              </span>
              <span className="text-right text-muted-foreground tabular-nums">{span.kind === "follow_up" ? "" : duration(span.duration_ms)}</span>
            </li>
          );
        })}
      </ol>
      <p className="text-xs text-muted-foreground">{t.timelineSum(duration(end - begin), duration(waited))}</p>
    </>
  );
}

function nameOf(span: Row): string {
  if (span.kind === "follow_up") return t.followUp;
  if (span.kind === "wait") return t.wait;
  return span.kind === "model" ? t.modelCall(span.round ?? 0) : span.name;
}

/** The times in which nothing ran: it was waited for a worker, a retry, a person. */
function waitsBetween(spans: Span[], begin: number, end: number): Row[] {
  const waits: Row[] = [];
  const wait = (from: number, to: number) =>
    to > from && waits.push({ kind: "wait", name: "", round: null, started_at: new Date(from).toISOString(), duration_ms: to - from, is_error: false });
  let until = begin;
  for (const span of spans.toSorted((a, b) => Date.parse(a.started_at) - Date.parse(b.started_at))) {
    const from = Date.parse(span.started_at);
    wait(until, from);
    until = Math.max(until, from + span.duration_ms);
  }
  wait(until, end);
  return waits;
}
