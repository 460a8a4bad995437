import { memo, useEffect, useState } from "react";
import { type PluginConfig, Streamdown, parseMarkdownIntoBlocks } from "streamdown";

// Highlighting and mathematics are large: they are loaded when a text first needs them.
const loaders = {
  code: async () => (await import("@streamdown/code")).code,
  math: async () => {
    const [{ createMathPlugin }] = await Promise.all([import("@streamdown/math"), import("katex/dist/katex.min.css")]);
    return createMathPlugin();
  },
};
const loaded: PluginConfig = {};

function usePlugins(text: string): PluginConfig {
  const [plugins, setPlugins] = useState<PluginConfig>(loaded);
  const wants = { code: text.includes("```"), math: text.includes("$$") };
  useEffect(() => {
    let current = true;
    for (const name of ["code", "math"] as const) {
      if (!wants[name] || plugins[name]) continue;
      void loaders[name]().then((plugin) => {
        Object.assign(loaded, { [name]: plugin });
        if (current) setPlugins({ ...loaded });
      });
    }
    return () => {
      current = false;
    };
  }, [wants.code, wants.math, plugins]);
  return plugins;
}

const COMPONENTS = {
  // An image of another host would tell that host what the model wrote into its address. It is shown as a link.
  img: ({ src, alt }: { src?: unknown; alt?: string }) => (
    <a href={typeof src === "string" ? src : undefined} target="_blank" rel="noopener noreferrer" className="underline">
      {alt || String(src ?? "")}
    </a>
  ),
};
const CONTROLS = { table: false, code: { copy: true, download: false }, mermaid: false, image: false } as const;

const LINK_SAFETY = { enabled: false } as const; // one object: another one would render all blocks again

const PIECE_MAX = 4000; // characters
const MARKUP = /[*_`[\]$<>\\|~#\n]/;

/** A text without markup in pieces, cut between words; markup and what follows it stay whole. */
function piecesOf(paragraph: string): string[] {
  const pieces: string[] = [];
  let at = 0;
  while (paragraph.length - at > PIECE_MAX) {
    const piece = paragraph.slice(at, paragraph.lastIndexOf(" ", at + PIECE_MAX) + 1);
    if (!piece || MARKUP.test(piece)) break;
    pieces.push(piece);
    at += piece.length;
  }
  return [...pieces, paragraph.slice(at)];
}

/** The blocks of a text. A block is rendered again whenever it changes; so a paragraph that does not end is cut. */
const blocksOf = (markdown: string): string[] => parseMarkdownIntoBlocks(markdown).flatMap(piecesOf);

/** What a model wrote, as Markdown. HTML in it is sanitized, and nothing in it can run or load anything. */
export const Markdown = memo(function Markdown({ text, streaming }: { text: string; streaming: boolean }) {
  const plugins = usePlugins(text);
  return (
    <Streamdown
      mode={streaming ? "streaming" : "static"}
      isAnimating={streaming}
      parseMarkdownIntoBlocksFn={blocksOf}
      plugins={plugins}
      components={COMPONENTS}
      controls={CONTROLS}
      linkSafety={LINK_SAFETY}
      className="min-w-0 [overflow-wrap:anywhere]"
    >
      {text}
    </Streamdown>
  );
});
