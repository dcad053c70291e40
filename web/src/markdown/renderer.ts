/** Markdown as HTML that may be put into the page: without scripts, styles, foreign images and foreign elements. */
import DOMPurify from "dompurify";
import createParser, { type MarkdownIt } from "markdown-it";
import { addMath } from "./math";

/** What turns parts of Markdown into HTML once it is loaded; undefined: not yet, or not wanted. */
export interface Engines {
  /** Returns code with the marks of a highlighter; undefined: the language is not known. */
  highlight?: ((code: string, language: string) => string | undefined) | undefined;
  /** Returns a formula as MathML; undefined: it has an error. */
  formula?: ((tex: string, isDisplay: boolean) => string | undefined) | undefined;
}

/** The words of the elements that rendered Markdown has. */
export interface Words {
  copy: string;
  image: string;
}

const SAFE_LINK = /^(https?:|mailto:)/i;
const SAFE_IMAGE = /^data:image\/(png|jpeg|gif|webp|avif);base64,[a-z0-9+/=\s]*$/i;
const LANGUAGE = /^[\w+#.-]{1,30}/;
const NEW_TAB = 'target="_blank" rel="noopener noreferrer nofollow"';
/** Longer code is shown without colours, which would stop the page for a noticeable time. */
const MAX_HIGHLIGHTED_CHARS = 60_000;

const HTML_TAGS = "a b blockquote br button code del div em h1 h2 h3 h4 h5 h6 hr img li ol p pre s span strong ";
const TABLE_TAGS = "table tbody td th thead tr ul ";
const MATH_TAGS =
  "math menclose merror mfenced mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace " +
  "msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none";
const HTML_ATTRIBUTES = "alt class rel start target title type ";
const MATH_ATTRIBUTES =
  "accent accentunder columnalign columnlines columnspacing depth display displaystyle fence height largeop " +
  "linethickness lspace mathbackground mathcolor mathsize mathvariant maxsize minsize movablelimits notation rowlines " +
  "rowspacing rspace scriptlevel separator stretchy symmetric voffset width";
const PLAIN_ATTRIBUTES = (HTML_ATTRIBUTES + MATH_ATTRIBUTES).split(" ");

const ALLOWED = {
  ALLOWED_TAGS: (HTML_TAGS + TABLE_TAGS + MATH_TAGS).split(" "),
  ALLOWED_ATTR: ["href", "src", ...PLAIN_ATTRIBUTES],
  // Else the pattern of addresses is applied to these, too.
  ADD_URI_SAFE_ATTR: PLAIN_ATTRIBUTES,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|data:image\/)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

/** Return HTML without anything that this page does not render itself. */
export function sanitised(html: string): string {
  return DOMPurify.sanitize(html, ALLOWED);
}

/**
 * Return a parser and renderer of Markdown. Its output still has to pass `sanitised`.
 *
 * HTML in the Markdown is text. Links open in a new tab. Images of other servers become links, as loading them would
 * tell those servers who reads what.
 */
export function createMarkdown(engines: Engines, words: Words): MarkdownIt {
  const markdown = createParser({ html: false, linkify: true, breaks: false });
  const { escapeHtml } = markdown.utils;
  markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
  markdown.validateLink = (url) => SAFE_LINK.test(url.trim()) || SAFE_IMAGE.test(url.trim());
  const { rules } = markdown.renderer;
  addMath(markdown, (tex, isDisplay) => {
    const rendered = engines.formula?.(tex, isDisplay);
    return rendered ?? `<code class="md-tex">${escapeHtml(tex)}</code>`;
  });
  rules.link_open = (tokens, index) => {
    const href = String(tokens[index]?.attrGet("href") ?? "");
    return SAFE_LINK.test(href) ? `<a href="${escapeHtml(href)}" ${NEW_TAB}>` : "<a>";
  };
  rules.image = (tokens, index) => {
    const source = String(tokens[index]?.attrGet("src") ?? "");
    const label = tokens[index]?.content ?? "";
    if (SAFE_IMAGE.test(source)) return `<img src="${escapeHtml(source)}" alt="${escapeHtml(label)}">`;
    const text = escapeHtml(`${words.image}: ${label || source}`);
    return `<a class="md-image" href="${escapeHtml(source)}" ${NEW_TAB}>${text}</a>`;
  };
  const code = (text: string, info: string): string => {
    const language = LANGUAGE.exec(info.trim())?.[0] ?? "";
    const isShort = text.length <= MAX_HIGHLIGHTED_CHARS;
    const body = (language && isShort && engines.highlight?.(text, language.toLowerCase())) || escapeHtml(text);
    const copy = `<button type="button" class="md-copy">${escapeHtml(words.copy)}</button>`;
    const head = `<div class="md-code-head"><span>${escapeHtml(language)}</span>${copy}</div>`;
    return `<div class="md-code">${head}<pre><code>${body}</code></pre></div>\n`;
  };
  rules.fence = (tokens, index) => code(tokens[index]?.content ?? "", tokens[index]?.info ?? "");
  rules.code_block = (tokens, index) => code(tokens[index]?.content ?? "", "");
  rules.table_open = () => '<div class="md-table"><table>\n';
  rules.table_close = () => "</table></div>\n";
  for (const tag of ["th", "td"]) {
    // Alignment as a class: the page's policy refuses style attributes.
    rules[`${tag}_open`] = (tokens, index) => {
      const alignment = /text-align:(left|center|right)/.exec(String(tokens[index]?.attrGet("style") ?? ""))?.[1];
      return alignment === undefined ? `<${tag}>` : `<${tag} class="md-${alignment}">`;
    };
  }
  return markdown;
}
