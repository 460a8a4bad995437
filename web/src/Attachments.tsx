import { FileText, X } from "lucide-react";
import { type ClipboardEvent, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { FILES_MAX, type FilePart, isImage, upload, useImage } from "./files";
import { t } from "./texts";

interface Attachment {
  key: number;
  name: string;
  share: number; // of the upload, 0 to 1
  part: FilePart | null; // once it is stored
  problem: string;
}

/** The files that the next message will have. They are uploaded as soon as they are chosen. */
export function useAttachments() {
  const [list, setList] = useState<Attachment[]>([]);
  const [refused, setRefused] = useState("");
  const uploads = useRef(new Map<number, AbortController>());
  const keys = useRef(0);
  const count = useRef(0);
  count.current = list.length;
  useEffect(() => {
    const running = uploads.current;
    return () => running.forEach((stop) => stop.abort());
  }, []);

  const change = useCallback((key: number, changes: Partial<Attachment>) => {
    setList((known) => known.map((one) => (one.key === key ? { ...one, ...changes } : one)));
  }, []);

  const add = useCallback(
    (files: Iterable<File>) => {
      const wanted = [...files];
      const taken = wanted.slice(0, FILES_MAX - count.current);
      setRefused(taken.length < wanted.length ? t.tooManyFiles(FILES_MAX) : "");
      for (const file of taken) {
        const key = ++keys.current;
        const stop = new AbortController();
        uploads.current.set(key, stop);
        setList((known) => [...known, { key, name: file.name || t.file, share: 0, part: null, problem: "" }]);
        upload(file, (share) => change(key, { share }), stop.signal)
          .then((part) => change(key, { part, name: part.filename ?? file.name, share: 1 }))
          .catch((error: Error) => change(key, { problem: error.message }))
          .finally(() => uploads.current.delete(key));
      }
    },
    [change],
  );

  const remove = useCallback((key: number) => {
    uploads.current.get(key)?.abort();
    setRefused("");
    setList((known) => known.filter((one) => one.key !== key));
  }, []);

  /** Take the stored files out, for a message; `giveBack` returns them when the message was not taken. */
  const take = useCallback((): { files: FilePart[]; giveBack: () => void } => {
    const stored = list.filter((one) => one.part !== null);
    setList((known) => known.filter((one) => one.part === null));
    return { files: stored.flatMap((one) => one.part ?? []), giveBack: () => setList((known) => [...stored, ...known]) };
  }, [list]);

  const pending = list.some((one) => one.part === null && !one.problem);
  const failed = list.some((one) => one.problem);
  const ready = list.some((one) => one.part !== null);
  return useMemo(() => ({ list, refused, pending, failed, ready, add, remove, take }), [list, refused, pending, failed, ready, add, remove, take]);
}

export type Attachments = ReturnType<typeof useAttachments>;

/** The files of a clipboard: of an image that was copied, or of files. Text is left to the browser. */
export function pastedFiles(event: ClipboardEvent): File[] {
  return event.clipboardData.types.includes("text/plain") ? [] : [...event.clipboardData.files];
}

/** Whether files are dragged over the window, and what to do when they are dropped. */
export function useDrop(add: (files: Iterable<File>) => void): boolean {
  const [over, setOver] = useState(false);
  useEffect(() => {
    let depth = 0; // `dragleave` comes for each element that the pointer leaves
    const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const enter = (event: DragEvent) => {
      if (!hasFiles(event)) return;
      depth++;
      setOver(true);
    };
    const leave = (event: DragEvent) => {
      if (hasFiles(event) && --depth <= 0) setOver(false);
    };
    const move = (event: DragEvent) => hasFiles(event) && event.preventDefault();
    const drop = (event: DragEvent) => {
      depth = 0;
      setOver(false);
      if (!hasFiles(event)) return;
      event.preventDefault();
      add(event.dataTransfer?.files ?? []);
    };
    const listeners = { dragenter: enter, dragleave: leave, dragover: move, drop };
    for (const [name, listener] of Object.entries(listeners)) window.addEventListener(name, listener as EventListener);
    return () => {
      for (const [name, listener] of Object.entries(listeners)) window.removeEventListener(name, listener as EventListener);
    };
  }, [add]);
  return over;
}

/** What will be sent with the message, each with how far its upload is. */
export function AttachmentList({ attachments }: { attachments: Attachments }) {
  const { list, refused, remove } = attachments;
  if (list.length === 0 && !refused) return null;
  return (
    <>
      <ul className="mb-2 flex flex-wrap gap-2" aria-label={t.attachments}>
        {list.map((one) => (
          <li key={one.key} className={`flex max-w-60 items-center gap-2 rounded-lg border bg-card py-1 pr-1 pl-2 text-xs ${one.problem ? "border-danger" : ""}`}>
            {one.part && isImage(one.part) ? <Thumbnail file={one.part} /> : <FileText size={16} className="shrink-0 text-primary" aria-hidden />}
            <span className="min-w-0 flex-1">
              <span className="block truncate">{one.name}</span>
              {one.problem ? (
                <span role="alert" className="block text-danger [overflow-wrap:anywhere]">
                  {one.problem}
                </span>
              ) : (
                one.part === null && <progress className="block h-1.5 w-24 accent-(--primary)" value={one.share} max={1} aria-label={t.uploading(one.name)} />
              )}
            </span>
            <button type="button" className="icon-button size-6" aria-label={t.removeFile(one.name)} title={t.removeFile(one.name)} onClick={() => remove(one.key)}>
              <X size={14} />
            </button>
          </li>
        ))}
      </ul>
      {refused && (
        <p role="alert" className="mb-2 text-sm text-danger">
          {refused}
        </p>
      )}
    </>
  );
}

function Thumbnail({ file }: { file: FilePart }) {
  const { source } = useImage(file.url);
  return source ? <img src={source} alt="" className="size-8 shrink-0 rounded object-cover" /> : <span className="spinner shrink-0" aria-hidden />;
}
