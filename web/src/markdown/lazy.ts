/** Loads the highlighter and the formulas when the first text needs them, and tells the page when they are there. */
import { signal } from "@preact/signals";
import type { Engines } from "./renderer";

/** What is loaded: another object whenever there is more. */
export const engines = signal<Engines>({});

const LOADERS: readonly { needs: RegExp; load: () => Promise<Engines> }[] = [
  { needs: /(^|\n) {0,3}(```|~~~)\s*\w/, load: async () => ({ highlight: (await import("./highlighter")).highlight }) },
  { needs: /\$[^\s$]|\$\$|\\\(|\\\[/, load: async () => ({ formula: (await import("./formulas")).formula }) },
];

const begun = new Set<RegExp>();

/** Begin to load what `text` needs. Without it, code has no colours and formulas show their source. */
export function loadEnginesFor(text: string): void {
  for (const { needs, load } of LOADERS) {
    if (begun.has(needs) || !needs.test(text)) continue;
    begun.add(needs);
    load().then(
      (more) => {
        engines.value = { ...engines.value, ...more };
      },
      // The next text that needs it tries once more.
      () => begun.delete(needs),
    );
  }
}
