import { type ReactNode, useEffect, useState } from "react";
import { type Model, api } from "./api";
import { type Choice, choice, useChoice } from "./choice";
import { t } from "./texts";

const EFFORTS = ["low", "medium", "high"]; // of a model of which nothing is known

let models: Promise<Model[]> | null = null;

function useModels(): Model[] {
  const [known, setKnown] = useState<Model[]>([]);
  useEffect(() => {
    models ??= api.models().then((answer) => answer.data);
    models.then(setKnown, () => {
      models = null; // the next composer asks again; the tiers can be chosen meanwhile
    });
  }, []);
  return known;
}

/** Which model answers the next messages, and how much it thinks; or only the next one. */
export function Choices() {
  const chosen = useChoice();
  const known = useModels();
  const others = known.filter((model) => !choice.tiers.includes(model.id)).map((model) => model.id);
  const ids = [...new Set([...choice.tiers, ...others, chosen.model])];
  const abilities = known.find((model) => model.id === chosen.model)?.abilities;
  const efforts = abilities ? abilities.efforts : EFFORTS;
  const thinking = [...new Set([...choice.modes, ...efforts, chosen.thinking])];
  const nameOf = (model: string) => {
    const behind = known.find((one) => one.id === model)?.model;
    const name = t.models[model] ?? model;
    return behind && behind !== model ? `${name} (${behind})` : name;
  };
  return (
    <div className="mt-1.5 flex flex-wrap items-center gap-x-1 px-2 text-xs text-muted-foreground">
      <Select name="model" label={t.model} value={chosen.model}>
        {ids.map((id) => (
          <option key={id} value={id} className="bg-background text-foreground">
            {nameOf(id)}
          </option>
        ))}
      </Select>
      <Select name="thinking" label={t.thinkingChoice} value={chosen.thinking}>
        {thinking.map((value) => (
          <option key={value} value={value} className="bg-background text-foreground">
            {t.thinkingChoices[value] ?? value}
          </option>
        ))}
      </Select>
      <label className="flex items-center gap-1.5 rounded-md px-1 py-0.5 hover:bg-muted hover:text-foreground" title={t.onceText}>
        <input type="checkbox" className="accent-(--primary)" checked={chosen.once} onChange={(event) => choice.set({ once: event.target.checked })} />
        {t.once}
      </label>
    </div>
  );
}

function Select({ name, label, value, children }: { name: keyof Choice; label: string; value: string; children: ReactNode }) {
  return (
    <select
      aria-label={label}
      title={label}
      value={value}
      className="max-w-48 rounded-md bg-transparent px-1 py-0.5 hover:bg-muted hover:text-foreground"
      onChange={(event) => choice.set({ [name]: event.target.value })}
    >
      {children}
    </select>
  );
}
