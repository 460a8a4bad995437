import { Check, Circle, CircleDot } from "lucide-react";
import type { PlanStep } from "./messages";
import { t } from "./texts";

const LOOKS = {
  completed: { Icon: Check, style: "text-muted-foreground line-through", icon: "text-primary" },
  in_progress: { Icon: CircleDot, style: "font-medium", icon: "text-primary" },
  pending: { Icon: Circle, style: "text-muted-foreground", icon: "text-muted-foreground" },
} as const;

/** The steps that the copilot means to take, as it last said. */
export function Plan({ steps }: { steps: PlanStep[] }) {
  if (steps.length === 0) return null;
  return (
    <section aria-label={t.plan} className="rounded-xl border bg-card px-3 py-2 text-sm">
      <h2 className="text-xs font-medium text-muted-foreground">{t.plan}</h2>
      <ol className="mt-1 flex flex-col gap-1">
        {steps.map((step, index) => {
          const { Icon, style, icon } = LOOKS[step.status] ?? LOOKS.pending;
          return (
            <li key={index} className={`flex items-start gap-2 ${style}`}>
              <Icon size={15} className={`mt-1 shrink-0 ${icon}`} role="img" aria-label={t.planStatuses[step.status] ?? step.status} />
              <span className="min-w-0 [overflow-wrap:anywhere]">{step.step}</span>
            </li>
          );
        })}
      </ol>
    </section>
  );
}
