import { ChartNoAxesGantt, Check, ChevronRight, Copy, RotateCcw } from "lucide-react";
import { memo, useEffect, useState } from "react";
import type { Turn } from "./api";
import { Approval } from "./Approval";
import { Files } from "./FileView";
import { type FilePart, fileId } from "./files";
import { Markdown } from "./Markdown";
import { type Live, type Message, type Part, isTool, textOf, toolNameOf, turnOf } from "./messages";
import { Plan } from "./Plan";
import { SubSession } from "./SubSession";
import { dollars, duration, t } from "./texts";
import { ToolRow, tookOf, useMeasured } from "./Tool";

interface Props {
  message: Message;
  streaming: boolean;
  live: Live;
  endings: ReadonlyMap<string, string>;
  turn?: Turn;
  onRetry?: (turnId: string) => void;
  onAnswerAgain?: (messageId: string) => void;
  onTimeline?: (turnId: string) => void;
}

/** An answer. Its parts come in the order in which they were made. */
export const Answer = memo(function Answer({ message, streaming, live, endings, turn, onRetry, onAnswerAgain, onTimeline }: Props) {
  const shown = message.parts.filter(isShown);
  const last = shown.at(-1);
  const again = onAnswerAgain && (() => onAnswerAgain(message.id));
  return (
    <div className="flex flex-col gap-3" aria-busy={streaming}>
      <span className="sr-only">{t.copilot}:</span>
      {shown.map((part, index) => (
        <PartView key={index} part={part.type === "file" ? named(part, message) : part} streaming={streaming && part === last} running={streaming} live={live} endings={endings} />
      ))}
      {message.metadata?.status === "failed" && (
        <div className="flex flex-wrap items-center gap-3 rounded-lg border border-danger px-3 py-2 text-sm text-danger">
          <p role="alert" className="min-w-0 flex-1 [overflow-wrap:anywhere]">
            {message.metadata.error ?? t.failedTurn}
          </p>
          {onRetry && (
            <button type="button" className="button bg-background text-foreground" onClick={() => onRetry(turnOf(message))}>
              <RotateCcw size={14} aria-hidden /> {t.retry}
            </button>
          )}
        </div>
      )}
      {message.metadata?.status === "cancelled" && <p className="text-sm text-muted-foreground">{t.stopped}</p>}
      {!streaming && <Footer text={textOf(message)} turn={turn} onAnswerAgain={again} onTimeline={onTimeline} />}
    </div>
  );
});

/** A file that the copilot shows, with its name: the output of the call that shared it has that. */
function named(file: FilePart, message: Message): FilePart {
  const outputs = message.parts.flatMap((part) => (isTool(part) && part.state === "output-available" ? [JSON.stringify(part.output)] : []));
  const shared = outputs.find((output) => output.includes(fileId(file)));
  const name = shared && /\\?"name\\?":\s*\\?"([^"\\]+)/.exec(shared)?.[1];
  return name ? { ...file, filename: name } : file;
}

function isShown(part: Part): boolean {
  if (part.type === "text" || part.type === "reasoning") return part.text.trim() !== "";
  return isTool(part) || part.type === "file" || part.type === "data-compaction" || part.type === "data-plan";
}

function PartView(props: {
  part: Part;
  streaming: boolean;
  running: boolean;
  live: Live;
  endings: ReadonlyMap<string, string>;
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
  if (part.type === "data-compaction") {
    return <p className="border-y py-1 text-center text-xs text-muted-foreground">{t.compacted}</p>;
  }
  if (part.type === "file") return <Files files={[part]} align="start" />;
  if (part.type === "data-plan") return <Plan steps={part.data.plan} />;
  if (!isTool(part)) return null;
  const name = toolNameOf(part);
  if (name === "update_plan" && part.state === "output-available") return null; // the plan itself is shown
  const approval = props.live.approvals.get(part.toolCallId);
  if (props.running && approval?.status === "waiting" && approval.kind !== "client_tool") {
    return (
      <>
        <ToolRow tool={part} name={name} running={false} waits />
        <Approval approval={approval} />
      </>
    );
  }
  return name === "run_sub_session" ? (
    <SubSession tool={part} running={props.running} updates={props.live.subSessions} endings={props.endings} />
  ) : (
    <ToolRow tool={part} name={name} running={props.running} progress={props.live.progress.get(part.toolCallId)} />
  );
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

const ACTION = "inline-flex items-center gap-1 rounded hover:text-foreground";

function Footer(props: { text: string; turn?: Turn; onAnswerAgain?: () => void; onTimeline?: (turnId: string) => void }) {
  const { text, turn, onAnswerAgain, onTimeline } = props;
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), 2000);
    return () => clearTimeout(timer);
  }, [copied]);
  return (
    <div className="-mt-1 flex min-h-7 flex-wrap items-center gap-3 text-xs text-muted-foreground">
      {text && navigator.clipboard && (
        <button type="button" className={ACTION} onClick={() => void navigator.clipboard.writeText(text).then(() => setCopied(true))}>
          {copied ? <Check size={13} aria-hidden /> : <Copy size={13} aria-hidden />} {copied ? t.copied : t.copy}
        </button>
      )}
      {onAnswerAgain && (
        <button type="button" className={ACTION} onClick={onAnswerAgain}>
          <RotateCcw size={13} aria-hidden /> {t.answerAgain}
        </button>
      )}
      {turn && turn.duration_ms !== null && onTimeline && (
        <button type="button" className={ACTION} title={t.timeline} aria-label={`${t.timeline}: ${duration(turn.duration_ms)}`} onClick={() => onTimeline(turn.turn_id)}>
          <ChartNoAxesGantt size={13} aria-hidden /> {duration(turn.duration_ms)}
        </button>
      )}
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
