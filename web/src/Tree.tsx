import { ArrowLeft } from "lucide-react";
import { useEffect, useState } from "react";
import { Link } from "wouter";
import { type TreeNode, api } from "./api";
import { Header } from "./Header";
import { dollars, duration, statusName, t } from "./texts";

const LOOK_EVERY_MS = 2000;

/** A session and all below it as a picture: who delegated to whom, how each stands, what it took. */
export default function Tree({ id, onMenu }: { id: string; onMenu: () => void }) {
  const [root, setRoot] = useState<TreeNode | null>(null);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    const stopped = new AbortController();
    let timer = 0;
    const look = async () => {
      try {
        setRoot(await api.tree(id, stopped.signal));
        setProblem("");
      } catch (error) {
        if (!stopped.signal.aborted) setProblem((error as Error).message);
      }
      if (!stopped.signal.aborted) timer = window.setTimeout(look, LOOK_EVERY_MS);
    };
    void look();
    return () => {
      stopped.abort();
      clearTimeout(timer);
    };
  }, [id]);
  return (
    <>
      <Header
        title={t.treeTitle}
        onMenu={onMenu}
        before={
          <Link href={`/s/${id}`} className="icon-button" aria-label={t.toChat} title={t.toChat}>
            <ArrowLeft size={18} />
          </Link>
        }
      />
      <div className="min-h-0 flex-1 overflow-auto p-6">
        {problem && (
          <p role="alert" className="mb-4 text-sm text-danger">
            {problem}
          </p>
        )}
        {root && (
          <ul className="w-max min-w-full">
            <Node node={root} period={periodOf(root)} />
          </ul>
        )}
      </div>
    </>
  );
}

const COLOURS: Record<string, string> = {
  running: "bg-primary",
  completed: "bg-emerald-600",
  failed: "bg-danger",
  cancelled: "bg-muted-foreground",
};

/** From the first beginning to the last end of the newest turns in a tree, in milliseconds. */
interface Period {
  from: number;
  to: number;
}

function turnPeriod(node: TreeNode): Period | null {
  const { progress } = node;
  if (progress === null) return null;
  const from = Date.parse(progress.started_at);
  return { from, to: progress.duration_ms === null ? Date.now() : from + progress.duration_ms };
}

function periodOf(node: TreeNode): Period | null {
  const periods = [turnPeriod(node), ...node.children.map(periodOf)].filter((period) => period !== null);
  if (periods.length === 0) return null;
  return { from: Math.min(...periods.map((one) => one.from)), to: Math.max(...periods.map((one) => one.to)) };
}

/** When the node's turn ran, within the time of the whole tree. */
function TimeBar({ node, period }: { node: TreeNode; period: Period | null }) {
  const own = turnPeriod(node);
  if (own === null || period === null || period.to === period.from) return null;
  const share = (milliseconds: number) => `${(milliseconds / (period.to - period.from)) * 100}%`;
  return (
    <span className="relative mt-1.5 block h-1.5 rounded-full bg-muted" aria-hidden>
      <span className={`absolute inset-y-0 min-w-[4px] rounded-full ${COLOURS[node.status ?? ""] ?? "bg-primary"}`} style={{ left: share(own.from - period.from), width: share(own.to - own.from) }} />
    </span>
  );
}

function Node({ node, period }: { node: TreeNode; period: Period | null }) {
  const progress = node.progress;
  const runs = node.status === "running";
  const elapsed = progress?.duration_ms ?? (progress && runs ? Date.now() - Date.parse(progress.started_at) : null);
  const cost = node.total_usage.cost_microdollars;
  const own = node.usage.cost_microdollars;
  return (
    <li className="relative flex items-center py-2">
      <Link href={`/s/${node.session_id}`} className="block w-60 shrink-0 rounded-xl border bg-card px-3 py-2 text-sm shadow-sm hover:border-primary">
        <span className="flex items-center gap-2">
          {runs ? (
            <span className="spinner text-primary" aria-hidden />
          ) : (
            <span className={`size-2.5 shrink-0 rounded-full ${COLOURS[node.status ?? ""] ?? "bg-border"}`} aria-hidden />
          )}
          <span className="min-w-0 flex-1 truncate font-medium">{node.title ?? t.untitled}</span>
        </span>
        <span className="mt-0.5 flex flex-wrap gap-x-3 text-xs text-muted-foreground">
          <span>{statusName(node.status)}</span>
          {progress && <span>{t.round(progress.round)}</span>}
          {elapsed !== null && <span>{duration(elapsed)}</span>}
          {cost !== null && <span>{node.children.length > 0 && own !== null ? t.ofWhichOwn(dollars(cost), dollars(own)) : dollars(cost)}</span>}
        </span>
        <TimeBar node={node} period={period} />
        {progress && progress.tools_running.length > 0 && (
          <span className="block truncate font-mono text-xs text-primary">{progress.tools_running.join(", ")}</span>
        )}
      </Link>
      {node.children.length > 0 && (
        <>
          <span className="w-6 shrink-0 border-t-2" aria-hidden />
          <ul className="tree-branch pl-6">
            {node.children.map((child) => (
              <Node key={child.session_id} node={child} period={period} />
            ))}
          </ul>
        </>
      )}
    </li>
  );
}
