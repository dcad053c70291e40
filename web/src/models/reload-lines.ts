import type { ReloadedConfig } from "../api/types";
import { texts } from "../texts/en";

export interface ReloadLine {
  title: string;
  items: string[];
}

/** What a new configuration changes, as titles and items; empty where it changes nothing. Pure. */
export function reloadLines(config: ReloadedConfig): ReloadLine[] {
  const words = texts.reload;
  const changed = Object.entries(config.changed).map(
    ([model, { keys, how, error }]) => `${model}: ${keys.join(", ")} (${error ?? how})`,
  );
  return [
    { title: words.added, items: config.added },
    { title: words.removed, items: config.removed },
    { title: words.changed, items: changed },
    { title: words.retuned, items: config.retuned },
    { title: words.memory, items: config.memory },
    { title: words.mcp, items: config.mcp },
    { title: words.needsRestart, items: config.needs_restart },
  ].filter(({ items }) => items.length > 0);
}
