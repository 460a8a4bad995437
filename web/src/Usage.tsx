import { useEffect, useState } from "react";
import { type Limit, type Limits, api } from "./api";
import { t } from "./texts";

/** How much of the user's limits is used. It shows nothing where there are no limits. `changed`: read them again. */
export function Usage({ changed }: { changed: unknown }) {
  const [limits, setLimits] = useState<Limits | null>(null);
  useEffect(() => {
    const stopped = new AbortController();
    api.usage(stopped.signal).then(setLimits, () => {}); // an older server has no such route
    return () => stopped.abort();
  }, [changed]);
  if (!limits?.daily && !limits?.weekly) return null;
  return (
    <section aria-label={t.usage} className="flex flex-col gap-2 border-t px-4 py-3 text-xs text-muted-foreground">
      {limits.daily && <Bar name={t.today} limit={limits.daily} />}
      {limits.weekly && <Bar name={t.thisWeek} limit={limits.weekly} />}
    </section>
  );
}

function Bar({ name, limit }: { name: string; limit: Limit }) {
  const full = limit.percent_used >= 100;
  const resets = new Date(limit.resets_at).toLocaleString(navigator.language, { weekday: "short", hour: "2-digit", minute: "2-digit" });
  return (
    <div>
      <div className="flex justify-between gap-2">
        <span>{name}</span>
        <span className={full ? "text-danger" : ""}>{Math.round(limit.percent_used)} %</span>
      </div>
      <div
        role="meter"
        aria-label={name}
        aria-valuenow={limit.percent_used}
        aria-valuemin={0}
        aria-valuemax={100}
        className="my-1 h-1.5 overflow-hidden rounded-full bg-border"
      >
        <div className={`h-full ${full ? "bg-danger" : "bg-primary"}`} style={{ width: `${Math.min(100, limit.percent_used)}%` }} />
      </div>
      <div>{t.resetsAt(resets)}</div>
    </div>
  );
}
