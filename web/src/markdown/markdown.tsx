/** Markdown in the page, also while it arrives. */
import { memo } from "preact/compat";
import { useEffect, useMemo } from "preact/hooks";
import { texts } from "../texts/en";
import { IncrementalMarkdown } from "./incremental";
import { engines, loadEnginesFor } from "./lazy";
import { createMarkdown } from "./renderer";
import "./markdown.css";

const WORDS = { copy: texts.common.copy, image: texts.chat.imageOf };
const SHOWS_COPIED_MS = 1_500;

const Block = memo(function Block({ html }: { html: string }) {
  // biome-ignore lint/security/noDangerouslySetInnerHtml: `IncrementalMarkdown` returns sanitised HTML only.
  return <div class="md-block" dangerouslySetInnerHTML={{ __html: html }} />;
});

async function copyCode(event: MouseEvent): Promise<void> {
  const button = event.target instanceof Element ? event.target.closest("button.md-copy") : null;
  const code = button?.closest(".md-code")?.querySelector("code")?.textContent;
  if (!button || code == null) return;
  try {
    await navigator.clipboard.writeText(code);
    button.textContent = texts.common.copied;
  } catch {
    // Browsers offer the clipboard on secure pages alone, which a page of another machine over HTTP is not.
    button.textContent = texts.chat.notCopied;
  }
  setTimeout(() => {
    button.textContent = texts.common.copy;
  }, SHOWS_COPIED_MS);
}

/** Rendered Markdown. `isFinal` is false while the text still grows. */
export function Markdown({ text, isFinal }: { text: string; isFinal: boolean }) {
  const loaded = engines.value;
  const incremental = useMemo(() => new IncrementalMarkdown(createMarkdown(loaded, WORDS)), [loaded]);
  useEffect(() => loadEnginesFor(text), [text]);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: a key on one of the buttons within is a click.
    // biome-ignore lint/a11y/noStaticElementInteractions: the buttons within are what is pressed.
    <div class="md" onClick={copyCode}>
      {incremental.render(text, isFinal).map((html, index) => (
        <Block key={index} html={html} />
      ))}
    </div>
  );
}
