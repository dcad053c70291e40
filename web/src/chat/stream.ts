/** One answer, from its request to its end. */
import { open } from "../api/client";
import { isAbort } from "../api/errors";
import { readEvents } from "../api/sse";
import { texts } from "../texts/en";
import { errorIn, withChunk } from "./chunk";
import type { Body } from "./request";
import type { Message } from "./types";

/** Sends a request and returns its answer once that has a good status. */
export type Send = (body: Body, signal: AbortSignal) => Promise<Response>;

const send: Send = (body, signal) => open("v1/chat/completions", { body, signal });

function failed(message: Message, error: string): Message {
  return { ...message, state: message.text || message.reasoning ? "cut" : "failed", error };
}

/**
 * Stream an answer, and return it as it is at its end: complete, stopped, cut, or failed with words that say why.
 *
 * @param message the answer so far: empty, or one that goes on.
 * @param onChange gets the answer with each piece that arrives.
 */
export async function streamAnswer(
  message: Message,
  body: Body,
  signal: AbortSignal,
  onChange: (message: Message) => void,
  by: Send = send,
): Promise<Message> {
  const sentAt = performance.now();
  const earlier = message.figures?.answerTokens ?? 0;
  let answer: Message = { ...message, state: "streaming", figures: {} };
  delete answer.error;
  delete answer.finish;
  try {
    const response = await by(body, signal);
    for await (const event of readEvents(response)) {
      if (event.data === "[DONE]") continue;
      const chunk = parsed(event.data);
      const error = errorIn(chunk);
      if (error !== undefined) return failed(answer, error);
      answer = withChunk(answer, chunk, { sentAt, now: performance.now() });
      onChange(answer);
    }
  } catch (error) {
    if (isAbort(error) || signal.aborted) return { ...answer, state: "stopped" };
    // Browsers report a broken connection as a TypeError, in words that differ.
    if (error instanceof TypeError) return failed(answer, texts.chat.connectionLost);
    return failed(answer, error instanceof Error ? error.message : String(error));
  }
  if (signal.aborted) return { ...answer, state: "stopped" };
  if (answer.finish === undefined) return failed(answer, texts.chat.connectionLost);
  const figures = { ...answer.figures, answerTokens: earlier + (answer.figures?.answerTokens ?? 0) };
  return { ...answer, figures, state: "complete" };
}

function parsed(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch {
    return { error: { message: texts.chat.unreadable } };
  }
}
