import type { Model, Scope } from "../api/types";
import { load, retune, unload } from "../models/commands";
import { go, PAGES } from "../state/route";
import { chooseTheme } from "../state/theme";
import { texts } from "../texts/en";

/** Something that the palette can do. */
export interface Command {
  title: string;
  group: string;
  run: () => unknown;
}

const words = texts.palette;

/** Everything that a key with these scopes can do from anywhere. Pure but for what the commands do when they run. */
export function commands(models: readonly Model[], scopes: ReadonlySet<Scope>): Command[] {
  const pages = PAGES.map((page) => ({
    title: words.goTo(texts.shell.pages[page]),
    group: words.page,
    run: () => go(page),
  }));
  const themes = (["system", "light", "dark"] as const).map((name) => ({
    title: words.theme(texts.settings.theme[name]),
    group: words.look,
    run: () => chooseTheme(name),
  }));
  return [...pages, ...models.flatMap((model) => ofModel(model, scopes)), ...themes];
}

function ofModel(model: Model, scopes: ReadonlySet<Scope>): Command[] {
  const name = model.id;
  const found: Command[] = [];
  if (scopes.has("inference")) {
    found.push({
      title: words.chatWith(name),
      group: words.model,
      run: () => go(`chat?model=${encodeURIComponent(name)}`),
    });
  }
  if (scopes.has("admin")) {
    found.push(
      model.state === "loaded" || model.state === "loading"
        ? { title: words.unload(name), group: words.model, run: () => unload(model, "drain") }
        : { title: words.load(name), group: words.model, run: () => load(model) },
      model.pinned
        ? { title: words.unpin(name), group: words.model, run: () => retune(model, { pinned: false }) }
        : { title: words.pin(name), group: words.model, run: () => retune(model, { pinned: true }) },
    );
  }
  return found;
}

/** The commands whose titles have all the words, those that begin with the text first. Pure. */
export function found(all: readonly Command[], text: string): Command[] {
  const wanted = text.toLowerCase().trim();
  const parts = wanted.split(/\s+/);
  const rank = ({ title }: Command) => (title.toLowerCase().startsWith(wanted) ? 0 : 1);
  return all
    .filter(({ title }) => parts.every((part) => title.toLowerCase().includes(part)))
    .toSorted((a, b) => rank(a) - rank(b));
}
