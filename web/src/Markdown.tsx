import { memo, useEffect, useState } from "react";
import { type PluginConfig, Streamdown } from "streamdown";

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

/** What a model wrote, as Markdown. HTML in it is sanitized, and nothing in it can run or load anything. */
export const Markdown = memo(function Markdown({ text, streaming }: { text: string; streaming: boolean }) {
  const plugins = usePlugins(text);
  return (
    <Streamdown
      mode={streaming ? "streaming" : "static"}
      isAnimating={streaming}
      plugins={plugins}
      components={COMPONENTS}
      controls={CONTROLS}
      linkSafety={{ enabled: false }}
      className="min-w-0 [overflow-wrap:anywhere]"
    >
      {text}
    </Streamdown>
  );
});
