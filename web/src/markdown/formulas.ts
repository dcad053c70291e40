/** Formulas as MathML, which browsers render without fonts or style sheets of this page. Loaded with the first formula. */
import katex from "katex";

/** Formulas that were rendered last: a growing block is rendered again with each addition. */
const MAX_CACHED = 500;
/** A longer formula is shown as its source. */
const MAX_TEX_CHARS = 4_000;

const cache = new Map<string, string>();

/** Return `tex` as MathML; undefined: it has an error, or is too long. */
export function formula(tex: string, isDisplay: boolean): string | undefined {
  if (tex.length > MAX_TEX_CHARS) return undefined;
  const key = `${isDisplay ? "d" : "i"}${tex}`;
  const known = cache.get(key);
  if (known !== undefined) return known;
  const html = rendered(tex, isDisplay);
  if (html === undefined) return undefined;
  if (cache.size >= MAX_CACHED) cache.clear();
  cache.set(key, html);
  return html;
}

function rendered(tex: string, displayMode: boolean): string | undefined {
  try {
    const html = katex.renderToString(tex, {
      ...{ output: "mathml", displayMode, throwOnError: true, strict: "ignore", trust: false },
      ...{ maxExpand: 200, maxSize: 20 },
    });
    // The source within the formula is for programs, and would be shown as text once its element is sanitised away.
    return html.replace(/<annotation\b[^>]*>[\s\S]*?<\/annotation>/g, "").replace(/<\/?semantics>/g, "");
  } catch (error) {
    if (error instanceof katex.ParseError) return undefined;
    throw error;
  }
}
