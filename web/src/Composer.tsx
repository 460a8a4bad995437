import { ArrowUp, Paperclip, Square, Zap } from "lucide-react";
import { useLayoutEffect, useRef, useState } from "react";
import { AttachmentList, pastedFiles, useAttachments, useDrop } from "./Attachments";
import { Choices } from "./Choices";
import { choice } from "./choice";
import type { FilePart } from "./files";
import { t } from "./texts";

const MAX_LENGTH = 32_000; // what the API takes

/** What a person is about to send. `interrupt`: stop the turn that runs first, and begin a new one. */
export interface Draft {
  text: string;
  files: FilePart[];
  interrupt?: boolean;
}

/** Where a message is written. While a turn runs, a message joins it or stops it, and Stop stands beside it. */
export function Composer(props: {
  busy: boolean;
  stopping?: boolean;
  disabled?: boolean;
  problem?: string;
  onSend: (draft: Draft) => Promise<boolean>;
  onStop?: () => void;
}) {
  const [text, setText] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);
  const picker = useRef<HTMLInputElement>(null);
  const attachments = useAttachments();
  const dragged = useDrop(attachments.add);
  useLayoutEffect(() => {
    const area = field.current;
    if (area === null) return;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, 240)}px`;
  }, [text]);
  const canSend = (text.trim() !== "" || attachments.ready) && !attachments.pending && !props.disabled;
  const send = async (interrupt = false) => {
    if (!canSend) return;
    const wanted = text.trim();
    const taken = attachments.take();
    setText("");
    if (await props.onSend({ text: wanted, files: taken.files, interrupt })) choice.used();
    else {
      setText((now) => now || wanted); // nothing that was typed or chosen is lost
      taken.giveBack();
    }
    field.current?.focus();
  };
  return (
    <div className="shrink-0 px-3 pb-3 md:px-4 md:pb-4">
      {dragged && (
        <div className="pointer-events-none fixed inset-0 z-30 flex items-center justify-center border-4 border-dashed border-primary bg-background/80 text-lg font-medium">{t.dropHere}</div>
      )}
      <div className="mx-auto max-w-3xl">
        {props.problem && (
          <p role="alert" className="mb-2 text-sm text-danger">
            {props.problem}
          </p>
        )}
        <AttachmentList attachments={attachments} />
        <form
          className="flex items-end gap-1.5 rounded-2xl border bg-card p-2 shadow-sm focus-within:border-primary"
          onSubmit={(event) => {
            event.preventDefault();
            void send();
          }}
        >
          <input
            ref={picker}
            type="file"
            multiple
            hidden
            aria-label={t.attach}
            onChange={(event) => {
              attachments.add(event.target.files ?? []);
              event.target.value = ""; // the same file may be chosen again
              field.current?.focus();
            }}
          />
          <button type="button" className="icon-button rounded-xl" aria-label={t.attach} title={t.attach} onClick={() => picker.current?.click()}>
            <Paperclip size={18} />
          </button>
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
            onPaste={(event) => {
              const files = pastedFiles(event);
              if (files.length === 0) return;
              event.preventDefault();
              attachments.add(files);
            }}
            onKeyDown={(event) => {
              if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) {
                event.preventDefault();
                void send(props.busy && (event.ctrlKey || event.metaKey));
              }
            }}
          />
          {props.busy && props.onStop && (
            <button type="button" className="button h-9 rounded-xl bg-background px-2.5" onClick={props.onStop} disabled={props.stopping}>
              {props.stopping ? <span className="spinner" aria-hidden /> : <Square size={13} fill="currentColor" aria-hidden />}
              {props.stopping ? t.stopping : t.stop}
            </button>
          )}
          {props.busy && canSend && !props.stopping && (
            <button type="button" className="icon-button rounded-xl border bg-background" aria-label={t.interrupt} title={t.interrupt} onClick={() => void send(true)}>
              <Zap size={16} />
            </button>
          )}
          <button
            type="submit"
            className="inline-flex size-9 shrink-0 items-center justify-center rounded-xl bg-primary text-primary-foreground disabled:opacity-40"
            disabled={!canSend}
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
