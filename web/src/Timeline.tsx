import { useEffect, useState } from "react";
import { type Span, type Timeline as Data, api } from "./api";
import { Dialog } from "./Dialog";
import { duration, t } from "./texts";

const LOOK_EVERY_MS = 2000;
const COLOURS: Record<Span["kind"], string> = { model: "bg-primary", tool: "bg-amber-600", follow_up: "bg-foreground" };

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
  const worked = covered(data.spans.map((span) => [Date.parse(span.started_at), Date.parse(span.started_at) + span.duration_ms]));
  return (
    <>
      <ol className="flex max-h-[60vh] flex-col gap-1 overflow-y-auto text-xs" tabIndex={0} aria-label={t.timeline}>
        {data.spans.map((span, index) => {
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
      <p className="text-xs text-muted-foreground">{t.timelineSum(duration(end - begin), duration(Math.max(0, whole - worked)))}</p>
    </>
  );
}

function nameOf(span: Span): string {
  if (span.kind === "follow_up") return t.followUp;
  return span.kind === "model" ? t.modelCall(span.round ?? 0) : span.name;
}

/** How long at least one of these periods lasts. */
function covered(periods: [number, number][]): number {
  let sum = 0;
  let until = 0;
  for (const [from, to] of periods.toSorted((a, b) => a[0] - b[0])) {
    if (to > until) sum += to - Math.max(from, until);
    until = Math.max(until, to);
  }
  return sum;
}
