/**
 * Rendering of a text that grows at its end. Blocks that nothing can change any more are rendered once; the last block
 * is rendered again with every addition.
 */
import type { MarkdownIt } from "markdown-it";
import { sanitised } from "./renderer";

/** The HTML of a text, block by block. */
export type Blocks = readonly string[];

type Token = ReturnType<MarkdownIt["parse"]>[number];

/** The index of the first token, and of the first line, of each top-level block. */
function topLevelBlocks(tokens: readonly Token[]): { token: number; line: number }[] {
  const starts: { token: number; line: number }[] = [];
  tokens.forEach((token, index) => {
    if (token.level === 0 && token.nesting >= 0 && token.map !== null)
      starts.push({ token: index, line: token.map[0] });
  });
  return starts;
}

/** Where line `line` of `text` begins. */
function lineStart(text: string, line: number): number {
  let at = 0;
  for (let seen = 0; seen < line; seen += 1) at = text.indexOf("\n", at) + 1;
  return at;
}

export class IncrementalMarkdown {
  readonly #markdown: MarkdownIt;
  #environment: Record<string, unknown> = {};
  #settled: string[] = [];
  #settledText = "";
  #text: string | undefined;
  #isFinal = false;
  #blocks: Blocks = [];

  constructor(markdown: MarkdownIt) {
    this.#markdown = markdown;
  }

  /**
   * Return the blocks of `source`.
   *
   * @param isFinal whether nothing will be added. Then links whose address stands below them are resolved as well.
   */
  render(source: string, isFinal: boolean): Blocks {
    const text = source.replace(/\r\n?/g, "\n");
    if (text === this.#text && isFinal === this.#isFinal) return this.#blocks;
    if (!text.startsWith(this.#settledText) || (isFinal && this.#hasReferences())) this.#reset();
    this.#text = text;
    this.#isFinal = isFinal;
    const tail = text.slice(this.#settledText.length);
    const tokens = this.#markdown.parse(tail, this.#environment);
    const starts = topLevelBlocks(tokens);
    const html = this.#htmlOf(tokens, starts);
    this.#blocks = [...this.#settled, ...html];
    if (!isFinal) this.#settle(tail, starts, html);
    return this.#blocks;
  }

  #reset(): void {
    this.#environment = {};
    this.#settled = [];
    this.#settledText = "";
  }

  #hasReferences(): boolean {
    return Object.keys((this.#environment.references ?? {}) as object).length > 0;
  }

  #settle(tail: string, starts: readonly { line: number }[], html: readonly string[]): void {
    // The last line may still turn into something else: `-` begins a list, and `--` behind a list belongs to its item.
    const completeLines = tail.split("\n").length - 1;
    let settled = 0;
    while (settled + 1 < starts.length && (starts[settled + 1]?.line ?? 0) < completeLines) settled += 1;
    if (settled === 0) return;
    this.#settled.push(...html.slice(0, settled));
    this.#settledText += tail.slice(0, lineStart(tail, starts[settled]?.line ?? 0));
  }

  #htmlOf(tokens: Token[], starts: readonly { token: number }[]): string[] {
    return starts.map(({ token }, index) => {
      const block = tokens.slice(token, starts[index + 1]?.token ?? tokens.length);
      return sanitised(this.#markdown.renderer.render(block, this.#markdown.options, this.#environment));
    });
  }
}
