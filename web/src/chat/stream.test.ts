import { describe, expect, it, vi } from "vitest";

// The client reads the page's address and storage, which are not there; each test sends by a function of its own.
vi.mock("../api/client", () => ({ open: () => Promise.reject(new Error("not here")) }));

import { type Send, streamAnswer } from "./stream";
import type { Message } from "./types";

const blank: Message = { id: "a", parent: "q", role: "assistant", text: "", createdAt: 0, state: "streaming" };
const chunk = (content: string, finish: string | null = null) =>
  `data: ${JSON.stringify({ choices: [{ delta: { content }, finish_reason: finish }] })}\n\n`;

function answering(...pieces: string[]): Send {
  return async () => new Response(pieces.join(""));
}

const never = new AbortController().signal;

describe("a streamed answer", () => {
  it("is complete with its finish_reason, and was shown as it grew", async () => {
    const seen: string[] = [];
    const by = answering(": alive\n\n", chunk("One "), chunk("two"), chunk("", "stop"), "data: [DONE]\n\n");
    const answer = await streamAnswer(blank, {}, never, ({ text }) => seen.push(text), by);
    expect(answer).toMatchObject({ text: "One two", state: "complete", finish: "stop" });
    expect(seen).toEqual(["One ", "One two", "One two"]);
  });

  it("goes on from what is there", async () => {
    const cut: Message = { ...blank, text: "One ", state: "cut", error: "lost", figures: { answerTokens: 1 } };
    const usage = `data: ${JSON.stringify({ choices: [], usage: { completion_tokens: 2 } })}\n\n`;
    const answer = await streamAnswer(cut, {}, never, () => {}, answering(chunk("two", "stop"), usage));
    expect(answer).toMatchObject({ text: "One two", state: "complete", figures: { answerTokens: 3 } });
    expect(answer.error).toBeUndefined();
  });

  it("is cut where the connection ends too early", async () => {
    const answer = await streamAnswer(blank, {}, never, () => {}, answering(chunk("One ")));
    expect(answer.state).toBe("cut");
    expect(answer.error).toBeTruthy();
  });

  it("is cut, in the server's words, by an error in the stream", async () => {
    const by = answering(chunk("One "), 'data: {"error": {"message": "The engine died."}}\n\n');
    const answer = await streamAnswer(blank, {}, never, () => {}, by);
    expect(answer).toMatchObject({ text: "One ", state: "cut", error: "The engine died." });
  });

  it("fails where the request is refused", async () => {
    const by = () => Promise.reject(new Error("No such model."));
    const answer = await streamAnswer(blank, {}, never, () => {}, by);
    expect(answer).toMatchObject({ state: "failed", error: "No such model." });
  });

  it("that is no JSON is cut", async () => {
    const answer = await streamAnswer(blank, {}, never, () => {}, answering(chunk("One"), "data: <html>\n\n"));
    expect(answer.state).toBe("cut");
  });

  it("is stopped by the person, and keeps what has arrived", async () => {
    const control = new AbortController();
    const by: Send = async (_body, signal) => {
      const body = new ReadableStream<Uint8Array>({
        start(stream) {
          stream.enqueue(new TextEncoder().encode(chunk("One ")));
          signal.addEventListener("abort", () => stream.error(new DOMException("stopped", "AbortError")));
        },
      });
      return new Response(body);
    };
    const answer = await streamAnswer(blank, {}, control.signal, () => control.abort(), by);
    expect(answer).toMatchObject({ text: "One ", state: "stopped" });
  });
});
