import { useCallback, useEffect, useState } from "react";
import { type Account, type Total, type WindowAmounts, api } from "./api";
import { Page } from "./Page";
import { dollars, t } from "./texts";

const PERIODS = [7, 30, 90]; // days
const GROUPS = ["day", "user", "model"] as const;
const SHOWN_MAX = 20;

type Totals = Record<(typeof GROUPS)[number], Total[]>;

const dayBefore = (days: number): string => new Date(Date.now() - days * 86_400_000).toISOString().slice(0, 10);

/** What admins see: usage as plots, and the accounts of users. */
export default function Admin({ onMenu }: { onMenu: () => void }) {
  const [period, setPeriod] = useState(30);
  const [totals, setTotals] = useState<Totals | null>(null);
  const [problem, setProblem] = useState("");
  const failed = useCallback((error: Error) => setProblem(error.message), []);
  useEffect(() => {
    const since = dayBefore(period - 1);
    Promise.all(GROUPS.map((by) => api.totals(by, since))).then((answers) => {
      setTotals(Object.fromEntries(GROUPS.map((by, index) => [by, answers[index]!.rows])) as Totals);
      setProblem("");
    }, failed);
  }, [period, failed]);
  return (
    <Page title={t.admin} onMenu={onMenu} problem={problem}>
      <label className="flex items-center gap-2 text-sm">
        {t.period}
        <select className="field w-40" value={period} onChange={(event) => setPeriod(Number(event.target.value))}>
          {PERIODS.map((days) => (
            <option key={days} value={days}>
              {t.days(days)}
            </option>
          ))}
        </select>
      </label>
      {totals && (
        <>
          <Days rows={totals.day} period={period} />
          <div className="grid gap-6 md:grid-cols-2">
            <Bars title={t.byUser} rows={totals.user} nameOf={(row) => row.user ?? "–"} />
            <Bars title={t.byModel} rows={totals.model} nameOf={(row) => row.model ?? "–"} />
          </div>
        </>
      )}
      <Users onProblem={failed} />
    </Page>
  );
}

const costOf = (row: Total | undefined): number => row?.cost_microdollars ?? 0;

/** A column for each day. */
function Days({ rows, period }: { rows: Total[]; period: number }) {
  const known = new Map(rows.map((row) => [row.day, row]));
  const days = Array.from({ length: period }, (_, index) => dayBefore(period - 1 - index));
  const most = Math.max(1, ...rows.map(costOf));
  const sum = rows.reduce((total, row) => total + costOf(row), 0);
  return (
    <figure className="rounded-xl border bg-card p-4">
      <figcaption className="mb-3 flex justify-between gap-2 text-sm font-semibold">
        {t.byDay} <span className="font-normal text-muted-foreground">{dollars(sum)}</span>
      </figcaption>
      <ol className="flex h-36 items-end gap-px" aria-label={t.byDay}>
        {days.map((day) => {
          const cost = costOf(known.get(day));
          return (
            <li key={day} className="flex h-full min-w-0 flex-1 items-end" title={`${day}: ${dollars(cost)}`}>
              <span className="sr-only">{`${day}: ${dollars(cost)}`}</span>
              <span className={`w-full rounded-t-sm ${cost ? "bg-primary" : "bg-border"}`} style={{ height: `${Math.max(1, (cost / most) * 100)}%` }} aria-hidden />
            </li>
          );
        })}
      </ol>
      <div className="mt-1 flex justify-between text-xs text-muted-foreground" aria-hidden>
        <span>{days[0]}</span>
        <span>{days.at(-1)}</span>
      </div>
    </figure>
  );
}

function Bars({ title, rows, nameOf }: { title: string; rows: Total[]; nameOf: (row: Total) => string }) {
  const sorted = rows.toSorted((a, b) => costOf(b) - costOf(a));
  const most = Math.max(1, costOf(sorted[0]));
  return (
    <figure className="rounded-xl border bg-card p-4 text-sm">
      <figcaption className="mb-3 font-semibold">{title}</figcaption>
      {rows.length === 0 && <p className="text-muted-foreground">{t.nothingUsed}</p>}
      <ol className="flex flex-col gap-2" aria-label={title}>
        {sorted.slice(0, SHOWN_MAX).map((row) => (
          <li key={nameOf(row)}>
            <div className="flex justify-between gap-2">
              <span className="truncate">{nameOf(row)}</span>
              <span className="shrink-0 text-muted-foreground tabular-nums">
                {dollars(costOf(row))} · {(row.prompt_tokens + row.completion_tokens).toLocaleString(navigator.language)} {t.tokens}
              </span>
            </div>
            <div className="mt-1 h-2 rounded-full bg-muted" aria-hidden>
              <div className="h-full min-w-[3px] rounded-full bg-primary" style={{ width: `${(costOf(row) / most) * 100}%` }} />
            </div>
          </li>
        ))}
      </ol>
      {sorted.length > SHOWN_MAX && <p className="mt-2 text-xs text-muted-foreground">{t.andMore(sorted.length - SHOWN_MAX)}</p>}
    </figure>
  );
}

function Users({ onProblem }: { onProblem: (error: Error) => void }) {
  const [found, setFound] = useState<Account[] | null>(null);
  const change = (account: Account) => setFound((known) => known?.map((one) => (one.user_id === account.user_id ? account : one)) ?? null);
  return (
    <section className="flex flex-col gap-3 text-sm" aria-label={t.users}>
      <h2 className="font-semibold">{t.users}</h2>
      <form
        className="flex gap-2"
        onSubmit={(event) => {
          event.preventDefault();
          const wanted = String(new FormData(event.currentTarget).get("user")).trim();
          if (wanted) api.accounts(wanted.includes("@") ? "email" : "user_id", wanted).then((answer) => setFound(answer.accounts), onProblem);
        }}
      >
        <input name="user" className="field" aria-label={t.findUser} placeholder={t.findUser} />
        <button className="button">{t.find}</button>
      </form>
      {found?.length === 0 && <p className="text-muted-foreground">{t.noUser}</p>}
      <ul className="flex flex-col gap-2">
        {found?.map((account) => (
          <User key={account.user_id} account={account} onChange={change} onProblem={onProblem} />
        ))}
      </ul>
    </section>
  );
}

function User({ account, onChange, onProblem }: { account: Account; onChange: (account: Account) => void; onProblem: (error: Error) => void }) {
  const act = (action: Promise<Account>) => void action.then(onChange, onProblem);
  return (
    <li className="flex flex-col gap-2 rounded-xl border p-3">
      <div className="flex flex-wrap gap-x-3">
        <span className="font-medium [overflow-wrap:anywhere]">{account.user_id}</span>
        {account.email && <span className="text-muted-foreground">{account.email}</span>}
      </div>
      <div className="flex flex-wrap gap-x-4 text-xs text-muted-foreground">
        <span>
          {t.today}: {used(account.daily)}
        </span>
        <span>
          {t.thisWeek}: {used(account.weekly)}
        </span>
        <span>
          {t.credits}: {account.credits}
        </span>
      </div>
      <form
        className="flex flex-wrap items-end gap-2"
        onSubmit={(event) => {
          event.preventDefault();
          const tier = String(new FormData(event.currentTarget).get("tier")).trim();
          act(api.setTier(account.user_id, tier || null));
        }}
      >
        <label className="min-w-32">
          {t.tier} ({account.tier})
          <input name="tier" className="field mt-1" defaultValue={account.set_tier ?? ""} placeholder={t.tierOfToken} />
        </label>
        <button className="button">{t.save}</button>
        <button type="button" className="button" onClick={() => act(api.resetWindow(account.user_id, "day"))}>
          {t.resetDay}
        </button>
        <button type="button" className="button" onClick={() => act(api.resetWindow(account.user_id, "week"))}>
          {t.resetWeek}
        </button>
      </form>
    </li>
  );
}

function used(amounts: WindowAmounts): string {
  const spent = dollars(amounts.used_microdollars);
  return amounts.limit_microdollars === null ? spent : `${spent} / ${dollars(amounts.limit_microdollars)} (${Math.round(amounts.percent_used ?? 0)} %)`;
}
