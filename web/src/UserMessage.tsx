import { ChevronLeft, ChevronRight, Pencil } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { type Version, api } from "./api";
import { Files } from "./FileView";
import type { FilePart } from "./files";
import { t } from "./texts";

/** What a person wrote. */
export function UserBubble({ text, files = [], waiting }: { text: string; files?: FilePart[]; waiting?: boolean }) {
  return (
    <div className="flex flex-col items-end gap-2">
      <Files files={files} align="end" />
      <div
        className={`max-w-[85%] rounded-2xl rounded-br-md px-4 py-2 whitespace-pre-wrap [overflow-wrap:anywhere] ${waiting ? "border border-dashed text-muted-foreground" : "bg-bubble"}`}
      >
        <span className="sr-only">{t.you}: </span>
        <span data-from="user">{text}</span>
        {waiting && (
          <span className="mt-1 flex items-center gap-1.5 text-xs">
            <span className="spinner size-3" aria-hidden /> {t.waiting}
          </span>
        )}
      </div>
    </div>
  );
}

/** The versions of a message; `index` is the one that is looked at. */
export interface Shown {
  messageId: string;
  versions: Version[];
  index: number;
}

interface Props {
  sessionId: string;
  messageId: string;
  text: string;
  files: FilePart[];
  edited: boolean;
  shown?: Shown; // of this message
  onShow?: (shown: Shown | null) => void;
  editing: boolean;
  onEditing: (messageId: string) => void; // empty: no message is edited
  onEdit?: (messageId: string, text: string) => Promise<boolean>;
}

/** A message in the conversation: it can be edited, and its versions can be looked at. */
export function UserMessage({ sessionId, messageId, text, files, edited, shown, onShow, editing, onEditing, onEdit }: Props) {
  if (editing && onEdit) return <Edit text={text} onCancel={() => onEditing("")} onSend={(wanted) => onEdit(messageId, wanted)} />;
  return (
    <div className="group/user flex flex-col gap-1">
      <UserBubble text={text} files={files} />
      <div className="flex min-h-6 items-center justify-end gap-1 text-xs text-muted-foreground">
        {onEdit && (
          <button
            type="button"
            aria-label={t.edit}
            title={t.edit}
            className="icon-button size-6 group-focus-within/user:opacity-100 group-hover/user:opacity-100 md:opacity-0"
            onClick={() => onEditing(messageId)}
          >
            <Pencil size={13} />
          </button>
        )}
        {(edited || shown) && onShow && <Pager sessionId={sessionId} messageId={messageId} shown={shown} onShow={onShow} />}
      </div>
    </div>
  );
}

function Pager({ sessionId, messageId, shown, onShow }: { sessionId: string; messageId: string; shown?: Shown; onShow: (shown: Shown | null) => void }) {
  const [versions, setVersions] = useState<Version[]>(shown?.versions ?? []);
  useEffect(() => {
    if (shown) return;
    api.versions(sessionId, messageId).then(
      (answer) => setVersions(answer.versions),
      () => {}, // the message itself is here; only its history is missing
    );
  }, [sessionId, messageId, shown]);
  if (versions.length < 2) return null;
  const index = shown?.index ?? versions.findIndex((version) => version.current);
  const go = (to: number) => onShow(versions[to]!.current ? null : { messageId, versions, index: to });
  return (
    <span className="flex items-center" role="group" aria-label={t.versions}>
      <button type="button" className="icon-button size-6" aria-label={t.olderVersion} disabled={index <= 0} onClick={() => go(index - 1)}>
        <ChevronLeft size={14} />
      </button>
      <span className="tabular-nums">{t.versionOf(index + 1, versions.length)}</span>
      <button type="button" className="icon-button size-6" aria-label={t.newerVersion} disabled={index >= versions.length - 1} onClick={() => go(index + 1)}>
        <ChevronRight size={14} />
      </button>
    </span>
  );
}

function Edit({ text, onCancel, onSend }: { text: string; onCancel: () => void; onSend: (text: string) => Promise<boolean> }) {
  const [wanted, setWanted] = useState(text);
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    const area = field.current;
    if (area === null) return;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, 320)}px`;
  }, [wanted]);
  useEffect(() => field.current?.focus(), []);
  return (
    <form
      className="flex flex-col gap-2 rounded-2xl border bg-card p-3"
      onKeyDown={(event) => event.key === "Escape" && onCancel()}
      onSubmit={(event) => {
        event.preventDefault();
        onCancel();
        void onSend(wanted.trim());
      }}
    >
      <textarea
        ref={field}
        value={wanted}
        maxLength={32_000}
        aria-label={t.editTitle}
        className="resize-none bg-transparent outline-none"
        onChange={(event) => setWanted(event.target.value)}
        onKeyDown={(event) => {
          if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
          event.preventDefault();
          event.currentTarget.form!.requestSubmit();
        }}
      />
      <p className="text-xs text-muted-foreground">{t.editText}</p>
      <div className="flex justify-end gap-2">
        <button type="button" className="button" onClick={onCancel}>
          {t.cancel}
        </button>
        <button className="button button-primary" disabled={!wanted.trim() || wanted.trim() === text}>
          {t.send}
        </button>
      </div>
    </form>
  );
}
