import { Check, Copy, Trash2 } from "lucide-react";
import { useCallback, useEffect, useState } from "react";
import { type Share as Link, api } from "./api";
import { Dialog } from "./Dialog";
import { moment, t } from "./texts";

const DAY_S = 86_400;
const LIFETIMES = [0, 1, 7, 30]; // days; 0: until it is revoked

/** The read-only links of a chat: make, copy and revoke them. */
export default function Share({ sessionId, onClose }: { sessionId: string; onClose: () => void }) {
  const [links, setLinks] = useState<Link[] | null>(null);
  const [days, setDays] = useState(0);
  const [problem, setProblem] = useState("");
  const [copied, setCopied] = useState("");
  const failed = (error: Error) => setProblem(error.message);
  const load = useCallback(() => api.shares(sessionId).then((answer) => setLinks(answer.data), failed), [sessionId]);
  useEffect(() => void load(), [load]);
  const addressOf = (link: Link) => new URL(link.url, location.origin).href;
  const copy = (link: Link) => navigator.clipboard.writeText(addressOf(link)).then(() => setCopied(link.id), failed);
  return (
    <Dialog title={t.share} description={t.shareText} open onOpenChange={onClose} wide>
      <form
        className="flex flex-wrap items-end gap-2"
        onSubmit={(event) => {
          event.preventDefault();
          setProblem("");
          api.share(sessionId, days ? days * DAY_S : null).then(load, failed);
        }}
      >
        <label className="min-w-40 flex-1 text-sm">
          {t.shareEnds}
          <select className="field mt-1" value={days} onChange={(event) => setDays(Number(event.target.value))}>
            {LIFETIMES.map((one) => (
              <option key={one} value={one}>
                {one ? t.days(one) : t.untilRevoked}
              </option>
            ))}
          </select>
        </label>
        <button className="button button-primary">{t.makeLink}</button>
      </form>
      {problem && (
        <p role="alert" className="text-sm text-danger">
          {problem}
        </p>
      )}
      {links?.length === 0 && <p className="text-sm text-muted-foreground">{t.noLinks}</p>}
      <ul className="flex max-h-72 flex-col gap-2 overflow-y-auto" aria-label={t.links}>
        {links?.map((link) => (
          <li key={link.id} className="flex items-center gap-1 rounded-lg border px-3 py-2 text-sm">
            <span className="min-w-0 flex-1">
              <a className="block truncate underline" href={link.url} target="_blank" rel="noopener noreferrer">
                {addressOf(link)}
              </a>
              <span className="text-xs text-muted-foreground">{link.expires_at ? t.endsAt(moment(link.expires_at)) : t.untilRevoked}</span>
            </span>
            {navigator.clipboard && (
              <button type="button" className="icon-button" aria-label={t.copy} title={t.copy} onClick={() => void copy(link)}>
                {copied === link.id ? <Check size={16} /> : <Copy size={16} />}
              </button>
            )}
            <button type="button" className="icon-button" aria-label={t.revoke} title={t.revoke} onClick={() => void api.revoke(sessionId, link.id).then(load, failed)}>
              <Trash2 size={16} />
            </button>
          </li>
        ))}
      </ul>
      <button type="button" className="button self-end" onClick={onClose}>
        {t.close}
      </button>
    </Dialog>
  );
}
