import type { Plugin } from "vite";

/** The sizes of a character in KaTeX's fonts: height, depth and so on. */
const METRICS = /\[-?[\d.]+(?:, -?[\d.]+){4}\]/g;
/** Paths of SVG, or long pieces of them, for delimiters of any size. */
const PATH = /"(?:[MLHVCSZmlhvcsz\d\s.,-]|\\n){40,}"/g;
/** Fewer matches mean that the package looks different now, and that nothing is saved. */
const MIN_METRICS = 1_500;

/** Leaves out of KaTeX what only its HTML needs, as the page shows MathML: 90 kB. */
export function mathmlOnly(): Plugin {
  return {
    name: "katex-mathml-only",
    apply: "build",
    transform(code, id) {
      if (!id.endsWith("/katex/dist/katex.mjs")) return null;
      const found = code.match(METRICS)?.length ?? 0;
      if (found < MIN_METRICS) this.error(`katex.mjs has ${found} character metrics; bundling/katex.ts expects more.`);
      // MathML asks which characters there are, so that the entries stay.
      return { code: code.replace(METRICS, "[0]").replace(PATH, '""'), map: null };
    },
  };
}
