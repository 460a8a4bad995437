import { Dialog as Radix } from "radix-ui";
import type { ReactNode } from "react";

/** A modal dialog; focus stays inside, Escape closes it. */
export function Dialog(props: {
  title: string;
  description?: string;
  open: boolean;
  wide?: boolean;
  onOpenChange: (open: boolean) => void;
  children: ReactNode;
}) {
  return (
    <Radix.Root open={props.open} onOpenChange={props.onOpenChange}>
      <Radix.Portal>
        <Radix.Overlay className="fixed inset-0 z-40 bg-black/50" />
        <Radix.Content
          className="fixed top-1/2 left-1/2 z-50 flex -translate-x-1/2 -translate-y-1/2 flex-col gap-3 rounded-xl border bg-background p-5 shadow-xl"
          style={{ width: `min(${props.wide ? "44rem" : "26rem"}, calc(100vw - 2rem))` }}
        >
          <Radix.Title className="text-base font-semibold">{props.title}</Radix.Title>
          {props.description ? (
            <Radix.Description className="text-sm text-muted-foreground">{props.description}</Radix.Description>
          ) : null}
          {props.children}
        </Radix.Content>
      </Radix.Portal>
    </Radix.Root>
  );
}
