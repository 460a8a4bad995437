import { ChevronRight, Pause, Play, Trash2, Zap } from "lucide-react";
import { useCallback, useEffect, useState } from "react";
import { Link } from "wouter";
import { type Schedule, type ScheduleRun, api } from "./api";
import { Page } from "./Page";
import { moment, statusName, t } from "./texts";

const UNITS = { minutes: 60, hours: 3600, days: 86_400 };

/** Messages that are sent at certain times: made, paused, run, removed. */
export default function Schedules({ onMenu }: { onMenu: () => void }) {
  const [list, setList] = useState<Schedule[] | null>(null);
  const [problem, setProblem] = useState("");
  const failed = useCallback((error: Error) => setProblem(error.message), []);
  const load = useCallback(() => {
    setProblem("");
    return api.schedules().then((answer) => setList(answer.data), failed);
  }, [failed]);
  useEffect(() => void load(), [load]);
  return (
    <Page title={t.schedules} onMenu={onMenu} problem={problem}>
      <NewSchedule onMade={load} />
      <section className="flex flex-col gap-2" aria-label={t.schedules}>
        {list?.length === 0 && <p className="text-sm text-muted-foreground">{t.noSchedules}</p>}
        <ul className="flex flex-col gap-2">
          {list?.map((schedule) => (
            <Entry key={schedule.id} schedule={schedule} onChange={load} onProblem={failed} />
          ))}
        </ul>
      </section>
    </Page>
  );
}

function NewSchedule({ onMade }: { onMade: () => void }) {
  const [byCron, setByCron] = useState(true);
  const [problem, setProblem] = useState("");
  const ownZone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  return (
    <form
      aria-label={t.newSchedule}
      className="flex flex-col gap-3 rounded-xl border bg-card p-4 text-sm"
      onSubmit={(event) => {
        event.preventDefault();
        const form = event.currentTarget;
        const values = new FormData(form);
        const text = (name: string) => String(values.get(name) ?? "").trim();
        const times = byCron
          ? { cron: text("cron"), time_zone: text("zone") || "UTC" }
          : { every_seconds: Number(text("count")) * UNITS[text("unit") as keyof typeof UNITS] };
        setProblem("");
        api.addSchedule({ message: text("message"), overlap: text("overlap"), ...times }).then(
          () => {
            form.reset();
            onMade();
          },
          (error: Error) => setProblem(error.message),
        );
      }}
    >
      <h2 className="font-semibold">{t.newSchedule}</h2>
      <label>
        {t.message}
        <textarea name="message" required rows={2} maxLength={32_000} className="field mt-1" />
      </label>
      <div className="flex flex-wrap gap-3">
        <label>
          {t.when}
          <select className="field mt-1" value={byCron ? "cron" : "every"} onChange={(event) => setByCron(event.target.value === "cron")}>
            <option value="cron">{t.byCron}</option>
            <option value="every">{t.byInterval}</option>
          </select>
        </label>
        {byCron ? (
          <>
            <label className="min-w-36 flex-1">
              {t.cron}
              <input name="cron" required title={t.cronText} defaultValue="0 9 * * 1-5" className="field mt-1 font-mono" />
            </label>
            <label className="min-w-36 flex-1">
              {t.timeZone}
              <input name="zone" defaultValue={ownZone} className="field mt-1" />
            </label>
          </>
        ) : (
          <>
            <label className="w-28">
              {t.every}
              <input name="count" type="number" required min={1} max={1000} defaultValue={1} className="field mt-1" />
            </label>
            <label className="w-36">
              {t.unit}
              <select name="unit" defaultValue="hours" className="field mt-1">
                {Object.keys(UNITS).map((unit) => (
                  <option key={unit} value={unit}>
                    {t.units[unit]}
                  </option>
                ))}
              </select>
            </label>
          </>
        )}
        <label className="min-w-44 flex-1">
          {t.overlap}
          <select name="overlap" className="field mt-1">
            {Object.entries(t.overlaps).map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </label>
      </div>
      {problem && (
        <p role="alert" className="text-danger">
          {problem}
        </p>
      )}
      <button className="button button-primary self-end">{t.makeSchedule}</button>
    </form>
  );
}

function timesOf(schedule: Schedule): string {
  if (schedule.cron !== null) return `${schedule.cron} (${schedule.time_zone})`;
  const seconds = schedule.every_seconds ?? 0;
  const [unit, length] = Object.entries(UNITS).findLast(([, one]) => seconds % one === 0) ?? ["seconds", 1];
  return `${t.every} ${seconds / length} ${t.units[unit]}`;
}

function Entry({ schedule, onChange, onProblem }: { schedule: Schedule; onChange: () => void; onProblem: (error: Error) => void }) {
  const [open, setOpen] = useState(false);
  const act = (action: Promise<unknown>) => void action.then(onChange, onProblem);
  const pause = schedule.paused ? t.resume : t.pause;
  return (
    <li className="rounded-xl border text-sm">
      <div className="flex flex-wrap items-center gap-2 px-3 py-2">
        <button type="button" className="icon-button size-7" aria-expanded={open} aria-label={t.runs} title={t.runs} onClick={() => setOpen(!open)}>
          <ChevronRight size={16} className={`transition-transform ${open ? "rotate-90" : ""}`} />
        </button>
        <div className="min-w-40 flex-1">
          <p className="line-clamp-2 [overflow-wrap:anywhere]">{schedule.message}</p>
          <p className="text-xs text-muted-foreground">
            <span className="font-mono">{timesOf(schedule)}</span>
            {schedule.paused && ` · ${t.paused}`}
            {schedule.session_id && (
              <>
                {" · "}
                <Link href={`/s/${schedule.session_id}`} className="underline">
                  {t.inItsChat}
                </Link>
              </>
            )}
          </p>
        </div>
        <button type="button" className="icon-button" aria-label={t.runNow} title={t.runNow} onClick={() => act(api.runSchedule(schedule.id))}>
          <Zap size={16} />
        </button>
        <button type="button" className="icon-button" aria-label={pause} title={pause} onClick={() => act(api.changeSchedule(schedule.id, { paused: !schedule.paused }))}>
          {schedule.paused ? <Play size={16} /> : <Pause size={16} />}
        </button>
        <button type="button" className="icon-button" aria-label={t.delete} title={t.delete} onClick={() => act(api.removeSchedule(schedule.id))}>
          <Trash2 size={16} />
        </button>
      </div>
      {open && <Runs id={schedule.id} onProblem={onProblem} />}
    </li>
  );
}

function Runs({ id, onProblem }: { id: string; onProblem: (error: Error) => void }) {
  const [runs, setRuns] = useState<ScheduleRun[] | null>(null);
  const [next, setNext] = useState<string[]>([]);
  useEffect(() => {
    Promise.all([api.scheduleRuns(id), api.schedule(id)]).then(([answer, schedule]) => {
      setRuns(answer.data);
      setNext(schedule.next_runs ?? []);
    }, onProblem);
  }, [id, onProblem]);
  if (runs === null) return null;
  return (
    <div className="flex flex-col gap-2 border-t px-3 py-2 text-xs text-muted-foreground">
      {next.length > 0 && (
        <p>
          {t.nextRuns}: {next.slice(0, 3).map(moment).join(" · ")}
        </p>
      )}
      {runs.length === 0 && <p>{t.noRuns}</p>}
      <ul className="flex flex-col gap-1">
        {runs.map((run) => (
          <li key={run.id} className="flex flex-wrap gap-x-3">
            <span>{moment(run.scheduled_at)}</span>
            <span className={run.status === "refused" ? "text-danger" : ""}>{run.status === "refused" ? (run.reason ?? t.refused) : statusName(run.turn_status)}</span>
            {run.session_id && (
              <Link href={`/s/${run.session_id}`} className="underline">
                {t.open}
              </Link>
            )}
          </li>
        ))}
      </ul>
    </div>
  );
}
