import { ArrowUp, Square } from "lucide-react";
import { useLayoutEffect, useRef, useState } from "react";
import { type Choice, choice, useChoice } from "./choice";
import { t } from "./texts";

const MAX_LENGTH = 32_000; // what the API takes

/** Where a message is written. While a turn runs, a message joins it, and Stop stands beside it. */
export function Composer(props: {
  busy: boolean;
  stopping?: boolean;
  disabled?: boolean;
  problem?: string;
  onSend: (text: string) => Promise<boolean>;
  onStop?: () => void;
}) {
  const [text, setText] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    const area = field.current;
    if (area === null) return;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, 240)}px`;
  }, [text]);
  const send = async () => {
    const wanted = text.trim();
    if (!wanted || props.disabled) return;
    setText("");
    if (!(await props.onSend(wanted))) setText((now) => now || wanted); // nothing that was typed is lost
    field.current?.focus();
  };
  return (
    <div className="shrink-0 px-3 pb-3 md:px-4 md:pb-4">
      <div className="mx-auto max-w-3xl">
        {props.problem && (
          <p role="alert" className="mb-2 text-sm text-danger">
            {props.problem}
          </p>
        )}
        <form
          className="flex items-end gap-2 rounded-2xl border bg-card p-2 pl-4 shadow-sm focus-within:border-primary"
          onSubmit={(event) => {
            event.preventDefault();
            void send();
          }}
        >
          <textarea
            ref={field}
            rows={1}
            autoFocus
            maxLength={MAX_LENGTH}
            value={text}
            aria-label={t.message}
            placeholder={props.busy ? t.placeholderRunning : t.placeholder}
            className="max-h-60 min-w-0 flex-1 resize-none bg-transparent py-1.5 outline-none placeholder:text-muted-foreground"
            onChange={(event) => setText(event.target.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) {
                event.preventDefault();
                void send();
              }
            }}
          />
          {props.busy && props.onStop && (
            <button type="button" className="button h-9 rounded-xl bg-background" onClick={props.onStop} disabled={props.stopping}>
              {props.stopping ? <span className="spinner" aria-hidden /> : <Square size={13} fill="currentColor" aria-hidden />}
              {props.stopping ? t.stopping : t.stop}
            </button>
          )}
          <button
            type="submit"
            className="inline-flex size-9 shrink-0 items-center justify-center rounded-xl bg-primary text-primary-foreground disabled:opacity-40"
            disabled={!text.trim() || props.disabled}
            aria-label={props.busy ? t.queue : t.send}
            title={props.busy ? t.queue : t.send}
          >
            <ArrowUp size={18} />
          </button>
        </form>
        <Choices />
      </div>
    </div>
  );
}

/** Which model answers the next message, and whether it thinks first. */
function Choices() {
  const chosen = useChoice();
  return (
    <div className="mt-1.5 flex gap-1 px-2 text-xs text-muted-foreground">
      {(["tier", "mode"] as const).map((name) => (
        <select
          key={name}
          aria-label={t.choices[name]}
          title={t.choices[name]}
          value={chosen[name]}
          className="rounded-md bg-transparent px-1 py-0.5 hover:bg-muted hover:text-foreground"
          onChange={(event) => choice.set({ [name]: event.target.value } as Partial<Choice>)}
        >
          {choice.values[name].map((value) => (
            <option key={value} value={value} className="bg-background text-foreground">
              {t.choices[value]}
            </option>
          ))}
        </select>
      ))}
    </div>
  );
}
