/** The formulas of Markdown: `$…$` and `\(…\)` within a line, `$$…$$` and `\[…\]` as a line of their own. */
import type { MarkdownIt, StateBlock, StateInline } from "markdown-it";

interface Delimiters {
  open: string;
  close: string;
  isDisplay: boolean;
}

const INLINE: readonly Delimiters[] = [
  { open: "$$", close: "$$", isDisplay: true },
  { open: "\\[", close: "\\]", isDisplay: true },
  { open: "\\(", close: "\\)", isDisplay: false },
  { open: "$", close: "$", isDisplay: false },
];

const BLOCK: readonly Delimiters[] = INLINE.filter((each) => each.isDisplay);

/** Where `close` stands in `text` at or after `from` without a backslash before it; -1: nowhere. */
function closingAt(text: string, close: string, from: number, end: number): number {
  for (let at = text.indexOf(close, from); at !== -1 && at < end; at = text.indexOf(close, at + 1)) {
    let backslashes = 0;
    while (text[at - 1 - backslashes] === "\\") backslashes += 1;
    if (backslashes % 2 === 0) return at;
  }
  return -1;
}

/**
 * Whether a pair of dollar signs encloses a formula and is not two prices, by pandoc's rule: no space inside of either
 * sign, and no digit behind the second.
 */
function isDollarFormula(text: string, start: number, end: number): boolean {
  const [first, last, next] = [text[start] ?? " ", text[end - 1] ?? " ", text[end + 1] ?? ""];
  return !/\s/.test(first) && !/\s/.test(last) && !/\d/.test(next);
}

function inlineRule(state: StateInline, silent: boolean): boolean {
  const { src, pos, posMax } = state;
  for (const { open, close, isDisplay } of INLINE) {
    if (!src.startsWith(open, pos)) continue;
    const start = pos + open.length;
    const end = closingAt(src, close, start, posMax);
    if (end === -1 || !src.slice(start, end).trim()) continue;
    if (open === "$" && !isDollarFormula(src, start, end)) continue;
    if (!silent) {
      const token = state.push("math", "math", 0);
      token.content = src.slice(start, end).trim();
      token.info = isDisplay ? "display" : "";
    }
    state.pos = end + close.length;
    return true;
  }
  return false;
}

function blockRule(state: StateBlock, startLine: number, endLine: number, silent: boolean): boolean {
  const lineStart = (state.bMarks[startLine] ?? 0) + (state.tShift[startLine] ?? 0);
  const found = BLOCK.find(({ open }) => state.src.startsWith(open, lineStart));
  if (found === undefined || (state.sCount[startLine] ?? 0) - state.blkIndent >= 4) return false;
  let text = state.src.slice(lineStart + found.open.length, state.eMarks[startLine]);
  let line = startLine;
  let end = closingAt(text, found.close, 0, text.length);
  while (end === -1) {
    line += 1;
    // A formula that is not closed is no formula, or the rest of an answer would be one while it arrives.
    if (line >= endLine) return false;
    const from = text.length;
    text += `\n${state.src.slice((state.bMarks[line] ?? 0) + (state.tShift[line] ?? 0), state.eMarks[line])}`;
    end = closingAt(text, found.close, from, text.length);
  }
  // Text behind the formula makes it a part of a paragraph.
  if (text.slice(end + found.close.length).trim() || !text.slice(0, end).trim()) return false;
  if (silent) return true;
  const token = state.push("math", "math", 0);
  token.block = true;
  token.content = text.slice(0, end).trim();
  token.info = "display";
  token.map = [startLine, line + 1];
  state.line = line + 1;
  return true;
}

/** Teach `markdown` formulas, which `render` turns into HTML. */
export function addMath(markdown: MarkdownIt, render: (tex: string, isDisplay: boolean) => string): void {
  // Before `escape`, which would take the backslash of `\(`.
  markdown.inline.ruler.before("escape", "math", inlineRule);
  markdown.block.ruler.before("fence", "math", blockRule, { alt: ["paragraph", "reference", "blockquote", "list"] });
  markdown.renderer.rules.math = (tokens, index) => {
    const token = tokens[index];
    if (token === undefined) return "";
    const html = render(token.content, token.info === "display");
    return token.block ? `<div class="md-formula">${html}</div>` : html;
  };
}
