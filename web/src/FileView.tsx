import { Download, FileText } from "lucide-react";
import { useState } from "react";
import { Dialog } from "./Dialog";
import { type FilePart, isImage, saveFile, useImage } from "./files";
import { t } from "./texts";

/** The files of a message: images are shown, others are offered to be saved. */
export function Files({ files, align }: { files: FilePart[]; align: "start" | "end" }) {
  if (files.length === 0) return null;
  return (
    <ul className={`flex flex-wrap gap-2 ${align === "end" ? "justify-end" : ""}`} aria-label={t.files}>
      {files.map((file, index) => (
        <li key={index} className="max-w-full min-w-0">
          {isImage(file) ? <Picture file={file} /> : <Saved file={file} />}
        </li>
      ))}
    </ul>
  );
}

const nameOf = (file: FilePart): string => file.filename || t.file;

function Saved({ file }: { file: FilePart }) {
  const [problem, setProblem] = useState("");
  const name = nameOf(file);
  return (
    <div className="flex max-w-full flex-col">
      <button
        type="button"
        className="flex max-w-full items-center gap-2 rounded-lg border bg-card px-3 py-2 text-left text-sm hover:bg-muted"
        aria-label={t.download(name)}
        title={t.download(name)}
        onClick={() => saveFile(file, name).catch((error: Error) => setProblem(error.message))}
      >
        <FileText size={16} className="shrink-0 text-primary" aria-hidden />
        <span className="min-w-0 truncate">{name}</span>
        <Download size={14} className="shrink-0 text-muted-foreground" aria-hidden />
      </button>
      {problem && (
        <p role="alert" className="text-xs text-danger">
          {problem}
        </p>
      )}
    </div>
  );
}

function Picture({ file }: { file: FilePart }) {
  const [open, setOpen] = useState(false);
  const { source, failed } = useImage(file.url);
  const [broken, setBroken] = useState(false);
  const name = nameOf(file);
  if (failed || broken) return <Saved file={file} />;
  return (
    <>
      <button type="button" className="block overflow-hidden rounded-xl border bg-muted" aria-label={t.enlarge(name)} onClick={() => setOpen(true)}>
        {source ? (
          <img src={source} alt={name} className="h-40 max-w-full min-w-24 object-cover" onError={() => setBroken(true)} />
        ) : (
          <span className="flex h-40 w-40 items-center justify-center">
            <span className="spinner text-muted-foreground" aria-hidden />
          </span>
        )}
      </button>
      <Dialog title={name} open={open} onOpenChange={setOpen} wide>
        <img src={source} alt={name} className="max-h-[70vh] w-full rounded-lg object-contain" />
        <div className="flex justify-end gap-2">
          <button type="button" className="button" onClick={() => void saveFile(file, name).catch(() => setBroken(true))}>
            <Download size={14} aria-hidden /> {t.save}
          </button>
          <button type="button" className="button button-primary" onClick={() => setOpen(false)}>
            {t.close}
          </button>
        </div>
      </Dialog>
    </>
  );
}
