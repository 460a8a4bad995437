import { ArrowDown } from "lucide-react";
import { type ReactElement, type ReactNode, useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";
import { Virtualizer } from "virtua";
import type { Message } from "./messages";
import { t } from "./texts";

const NEAR_END_PX = 120;
const LOAD_BEFORE_PX = 1500; // of the oldest message that is there
const OVERSCAN_PX = 1500;
const TOP_PX = 56; // the space above the first message, where loading is shown

interface Props {
  title: string;
  messages: Message[];
  hasEarlier: boolean;
  loadEarlier: () => Promise<void>;
  keep: string; // the id of a message that stays mounted: it is being edited
  toEndSignal: number; // a change scrolls to the end
  row: (message: Message, index: number) => ReactElement;
  children: ReactNode; // below the messages
}

/** The conversation. Only what is near the window is in the document; older pages are loaded on the way up. */
export function MessageList({ title, messages, hasEarlier, loadEarlier, keep, toEndSignal, row, children }: Props) {
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const { atEnd, toEnd, onScroll } = useStickToEnd(scroller, content);
  useEffect(() => {
    if (toEndSignal > 0) toEnd();
  }, [toEndSignal, toEnd]);

  // When older messages have been put before the first one, what is in view stays where it is.
  const first = useRef<string | undefined>(undefined);
  const isShifted = first.current !== undefined && messages[0]?.id !== first.current && messages.some((message) => message.id === first.current);
  useLayoutEffect(() => {
    first.current = messages[0]?.id;
  }, [messages]);

  const [problem, setProblem] = useState("");
  const loading = useRef(false);
  const loadIfNear = useCallback(() => {
    const box = scroller.current;
    if (!hasEarlier || loading.current || box === null || box.scrollTop > LOAD_BEFORE_PX) return;
    loading.current = true;
    setProblem("");
    loadEarlier()
      .catch((error: Error) => setProblem(error.message))
      .finally(() => {
        loading.current = false;
      });
  }, [hasEarlier, loadEarlier]);
  useEffect(() => {
    if (problem) return; // until the person asks again
    const frame = requestAnimationFrame(loadIfNear); // once the messages have their heights
    return () => cancelAnimationFrame(frame);
  }, [loadIfNear, messages, problem]);

  const kept = keep ? messages.findIndex((message) => message.id === keep) : -1;
  return (
    <div className="relative min-h-0 flex-1">
      <div
        ref={scroller}
        onScroll={() => {
          onScroll();
          if (!problem) loadIfNear();
        }}
        className="h-full overflow-y-auto [overflow-anchor:none]"
        tabIndex={0}
        role="log"
        aria-label={title}
        aria-live={atEnd ? "polite" : "off"} // old messages that come into view are no news
      >
        <div ref={content} className="mx-auto max-w-3xl px-4 pb-6">
          <div className="flex items-center justify-center gap-2 text-sm text-muted-foreground" style={{ height: TOP_PX }}>
            {problem ? (
              <>
                <span role="alert" className="truncate text-danger">
                  {problem}
                </span>
                <button type="button" className="button" onClick={loadIfNear}>
                  {t.retry}
                </button>
              </>
            ) : (
              hasEarlier && <span className="spinner" role="img" aria-label={t.loading} />
            )}
          </div>
          <Virtualizer data={messages} scrollRef={scroller} startMargin={TOP_PX} bufferSize={OVERSCAN_PX} shift={isShifted} keepMounted={kept === -1 ? undefined : [kept]}>
            {row}
          </Virtualizer>
          {children}
        </div>
      </div>
      {!atEnd && (
        <button type="button" onClick={toEnd} aria-label={t.jump} title={t.jump} className="icon-button absolute bottom-3 left-1/2 -translate-x-1/2 border bg-background shadow-md">
          <ArrowDown size={18} />
        </button>
      )}
    </div>
  );
}

/** Keeps the newest message in view while the reader is at the end, and leaves the reader alone otherwise. */
function useStickToEnd(scroller: React.RefObject<HTMLDivElement | null>, content: React.RefObject<HTMLDivElement | null>) {
  const stick = useRef(true);
  const last = useRef({ top: 0, height: 0 });
  const [atEnd, setAtEnd] = useState(true);
  const toEnd = useCallback(() => {
    stick.current = true;
    scroller.current?.scrollTo({ top: scroller.current.scrollHeight });
  }, [scroller]);
  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => stick.current && toEnd());
    if (content.current) observer.observe(content.current);
    if (scroller.current) observer.observe(scroller.current);
    toEnd();
    return () => observer.disconnect();
  }, [toEnd, scroller, content]);
  const onScroll = useCallback(() => {
    const { scrollTop, scrollHeight, clientHeight } = scroller.current!;
    // Messages above that get their heights move the view too: only a move up in a list of the same height is the reader's.
    const movedUp = scrollTop < last.current.top - 1 && scrollHeight >= last.current.height;
    last.current = { top: scrollTop, height: scrollHeight };
    const isNear = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    if (isNear) stick.current = true;
    else if (movedUp) stick.current = false;
    setAtEnd(isNear || stick.current);
  }, [scroller]);
  return { atEnd, toEnd, onScroll };
}
