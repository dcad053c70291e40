/** One answer of a model. */
import { memo } from "preact/compat";
import { useState } from "preact/hooks";
import { Markdown } from "../markdown/markdown";
import { waitText } from "../models/load";
import { models } from "../state/server";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import { Icon } from "../ui/icon";
import { toast } from "../ui/toast";
import { CallCard } from "./calls";
import { Results } from "./results";
import type { Session } from "./session";
import { Tokens } from "./tokens";
import type { Call, Figures, Message } from "./types";

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

/** What an answer took, in words; empty: nothing is known. */
export function figuresLine(figures: Figures): string {
  const words = texts.chat.figures;
  const { tokensPerSecond, firstTokenMs, answerTokens, promptTokens, cachedTokens } = figures;
  const parts = [
    tokensPerSecond === undefined ? "" : words.speed(tokensPerSecond.toFixed(tokensPerSecond < 10 ? 1 : 0)),
    firstTokenMs === undefined ? "" : words.firstToken(seconds(firstTokenMs)),
    answerTokens === undefined ? "" : words.answer(answerTokens),
    promptTokens === undefined ? "" : words.prompt(promptTokens, cachedTokens ?? 0),
  ];
  return parts.filter(Boolean).join(" · ");
}

function Reasoning({ message, isLive }: { message: Message; isLive: boolean }) {
  if (!message.reasoning) return null;
  const isThinking = isLive && !message.text;
  const time = seconds(message.reasoningMs ?? 0);
  return (
    <details class="reasoning">
      <summary>{isThinking ? texts.chat.thinking(time) : texts.chat.thought(time)}</summary>
      <div class="reasoning-text">{message.reasoning}</div>
    </details>
  );
}

/** The text, with the calls where they were made. */
function Body({ message, isLive }: { message: Message; isLive: boolean }) {
  const { text, calls = [] } = message;
  const places = [...new Set(calls.map((call) => call.at))].sort((one, other) => one - other);
  const parts: { text: string; calls: Call[] }[] = [];
  let from = 0;
  for (const at of places) {
    parts.push({ text: text.slice(from, at), calls: calls.filter((call) => call.at === at) });
    from = at;
  }
  parts.push({ text: text.slice(from), calls: [] });
  return (
    <>
      {parts.map((part, index) => (
        <div key={index}>
          {part.text.trim() && <Markdown text={part.text} isFinal={!isLive || index < parts.length - 1} />}
          {part.calls.map((call) => (
            <CallCard key={call.id} call={call} isLive={isLive} />
          ))}
        </div>
      ))}
    </>
  );
}

/** What an answer waits for that has not begun. */
function Waiting({ name }: { name: string | undefined }) {
  const model = models.value.find((each) => each.id === name);
  return <p class="muted waiting">{waitText(model)}</p>;
}

async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    toast(texts.common.copied);
  } catch {
    toast(texts.chat.notCopied, "bad");
  }
}

export interface AnswerProps {
  session: Session;
  message: Message;
  /** Whether it ends the branch that is shown. */
  isLast: boolean;
}

export const Answer = memo(function Answer({ session, message: kept, isLast }: AnswerProps) {
  const [showsTokens, setShowsTokens] = useState(false);
  const live = kept.state === "streaming" ? session.live(kept.id) : undefined;
  const message = live?.value ?? kept;
  const isLive = live !== undefined;
  const { state, error, tokens, figures, finish } = message;
  const asked = (message.calls ?? []).filter((call) => call.phase === "asked");
  const hasOutput = message.text !== "" || Boolean(message.reasoning);
  const canContinue = asked.length === 0 && hasOutput && (state !== "complete" || finish === "length");
  const line = figuresLine(figures ?? {});
  return (
    <div class="answer" aria-busy={isLive}>
      <Reasoning message={message} isLive={isLive} />
      {showsTokens && tokens ? <Tokens tokens={tokens} /> : <Body message={message} isLive={isLive} />}
      {isLive && !message.text && !message.reasoning && !message.calls && <Waiting name={message.model} />}
      {error && <p class={`callout ${state === "failed" ? "bad" : "busy"}`}>{error}</p>}
      {state === "stopped" && <p class="muted small">{texts.chat.wasStopped}</p>}
      {finish === "length" && state === "complete" && <p class="muted small">{texts.chat.reachedLength}</p>}
      {isLast && !isLive && asked.length > 0 && <Results session={session} calls={asked} />}
      <div class="answer-foot">
        {!isLive && (
          <>
            {canContinue && <Button onPress={() => session.continue(message)}>{texts.chat.continue}</Button>}
            <Button kind="quiet" icon label={texts.chat.retry} onPress={() => session.retry(message)}>
              <Icon name="refresh" />
            </Button>
            <Button kind="quiet" icon label={texts.common.copy} onPress={() => copy(message.text)}>
              <Icon name="copy" />
            </Button>
            {tokens && (
              <Button kind="quiet" pressed={showsTokens} onPress={() => setShowsTokens(!showsTokens)}>
                {texts.chat.probabilities}
              </Button>
            )}
          </>
        )}
        {line && <span class="muted small">{line}</span>}
      </div>
    </div>
  );
});
