/** Files of messages: uploaded with progress, read with this tab's token, shown or saved. */

import { useEffect, useState } from "react";
import { ApiError, authorization, token } from "./api";
import { t } from "./texts";

/** A file of a message, as the AI SDK has it. */
export interface FilePart {
  type: "file";
  url: string;
  mediaType: string;
  filename?: string;
}

interface StoredFile {
  name: string;
  media_type: string;
  size: number;
  url: string;
}

export const FILES_MAX = 20; // of a message, as the API takes them
const OURS = /^\/v1\/files\/[\w-]+\/content$/;
const SHOWN = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);

export const isImage = (file: FilePart): boolean => SHOWN.has(file.mediaType) && (OURS.test(file.url) || file.url.startsWith("data:image/"));

/** The id of a file by its address. */
export const fileId = (file: FilePart): string => file.url.split("/")[3] ?? "";

/** Upload a file. `fetch` cannot tell how far an upload is, an XMLHttpRequest can. */
export function upload(file: File, onProgress: (share: number) => void, stop: AbortSignal): Promise<FilePart> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/files");
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(new Error(t.notUploaded));
    request.onload = () => {
      if (request.status === 201) {
        const stored = request.response as StoredFile;
        resolve({ type: "file", url: stored.url, mediaType: stored.media_type, filename: stored.name });
      } else {
        const problem = request.response as { title?: string; detail?: string } | null;
        reject(new ApiError(request.status, problem?.detail ?? problem?.title ?? t.notUploaded));
      }
    };
    stop.addEventListener("abort", () => request.abort());
    const form = new FormData();
    form.append("file", file, file.name || "image.png");
    request.send(form);
  });
}

async function contentOf(url: string, stop?: AbortSignal): Promise<Blob> {
  const response = await fetch(url, { headers: authorization(), signal: stop });
  if (!response.ok) throw new ApiError(response.status, `${response.status} ${response.statusText}`);
  return response.blob();
}

/** An address of a file that an `<img>` can load: with a token, the content is read first. Empty while it is read. */
export function useImage(url: string): { source: string; failed: boolean } {
  const isDirect = !token.get() || !OURS.test(url);
  const [loaded, setLoaded] = useState({ source: "", failed: false });
  useEffect(() => {
    if (isDirect) return;
    const stop = new AbortController();
    let source = "";
    contentOf(url, stop.signal).then(
      (blob) => {
        source = URL.createObjectURL(blob);
        setLoaded({ source, failed: false });
      },
      () => stop.signal.aborted || setLoaded({ source: "", failed: true }),
    );
    return () => {
      stop.abort();
      if (source) URL.revokeObjectURL(source);
    };
  }, [url, isDirect]);
  return isDirect ? { source: url, failed: false } : loaded;
}

/** Let the browser save something under a name. */
export function save(content: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

export async function saveFile(file: FilePart, name: string): Promise<void> {
  save(await contentOf(file.url), name);
}
