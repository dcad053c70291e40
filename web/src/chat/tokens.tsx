/** The tokens of an answer with their probabilities. */
import { useState } from "preact/hooks";
import { texts } from "../texts/en";
import type { TokenChoice } from "./types";

/** From 0, all but certain, to 4, unlikely. */
export function unlikeliness(logprob: number): number {
  const probability = Math.exp(logprob);
  return [0.9, 0.6, 0.3, 0.1].filter((bound) => probability < bound).length;
}

export function percent(logprob: number): string {
  const share = 100 * Math.exp(logprob);
  return `${share < 10 ? share.toFixed(1) : share.toFixed(0)} %`;
}

/** A token as a person can see it. */
function visible(token: string): string {
  return token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣");
}

export function Tokens({ tokens }: { tokens: TokenChoice[] }) {
  const [at, setAt] = useState(0);
  const chosen = tokens[at];

  function keys(event: KeyboardEvent) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    setAt(Math.min(tokens.length - 1, Math.max(0, at + step)));
  }

  return (
    <div class="tokens">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: the arrow keys move from token to token. */}
      <section class="token-text" aria-label={texts.chat.probabilities} tabIndex={0} onKeyDown={keys}>
        {tokens.map((each, index) => (
          // biome-ignore lint/a11y/useKeyWithMouseEvents: the arrow keys do the same.
          // biome-ignore lint/a11y/noStaticElementInteractions: the group around it takes the keys.
          <span
            key={index}
            class={`token unlikely-${unlikeliness(each.logprob)} ${index === at ? "chosen" : ""}`}
            onMouseOver={() => setAt(index)}
          >
            {each.token}
          </span>
        ))}
      </section>
      {chosen && (
        <dl class="token-choices" aria-live="polite">
          <dt>{visible(chosen.token)}</dt>
          <dd>{percent(chosen.logprob)}</dd>
          {chosen.others
            .filter((other) => other.token !== chosen.token)
            .flatMap((other) => [
              <dt key={`t${other.token}`} class="muted">
                {visible(other.token)}
              </dt>,
              <dd key={`p${other.token}`} class="muted">
                {percent(other.logprob)}
              </dd>,
            ])}
        </dl>
      )}
    </div>
  );
}
