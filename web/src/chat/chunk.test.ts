import { describe, expect, it } from "vitest";
import { errorIn, withChunk } from "./chunk";
import type { Message } from "./types";

const blank: Message = { id: "a", parent: "q", role: "assistant", text: "", createdAt: 0, state: "streaming" };

/** An answer of chunks that arrive every 100 ms. */
function folded(...chunks: unknown[]): Message {
  return chunks.reduce<Message>((message, chunk, index) => {
    return withChunk(message, chunk, { sentAt: 1000, now: 1100 + 100 * index });
  }, blank);
}

const delta = (fields: object, more: object = {}) => ({ choices: [{ index: 0, delta: fields, ...more }] });

const progress = (phase: string, data: object = {}) => ({
  ...delta({}),
  agentic_tool_call_progress: { id: "call_1", round: 0, tool_name: "files_read", server: "files", phase, data },
});

describe("an answer", () => {
  it("grows by the content of its chunks, and times the first", () => {
    const answer = folded(
      delta({ role: "assistant", content: "" }),
      delta({ content: "Hello" }),
      delta({ content: "!" }),
    );
    expect(answer.text).toBe("Hello!");
    expect(answer.figures?.firstTokenMs).toBe(200);
  });

  it("has its reasoning apart, with the time up to the first text", () => {
    const thought = delta({ reasoning_content: "hm" });
    const answer = folded(thought, thought, delta({ content: "Yes" }), delta({ content: "." }));
    expect(answer.reasoning).toBe("hmhm");
    expect(answer.reasoningMs).toBe(200);
  });

  it("has the figures of its last chunks", () => {
    const usage = { prompt_tokens: 9, completion_tokens: 4, prompt_tokens_details: { cached_tokens: 3 } };
    const timings = { predicted_per_second: 51.5, predicted_n: 4 };
    const answer = folded(delta({}, { finish_reason: "length" }), { choices: [], usage, timings });
    expect(answer.finish).toBe("length");
    expect(answer.figures).toEqual({ promptTokens: 9, cachedTokens: 3, answerTokens: 4, tokensPerSecond: 51.5 });
  });

  it("has the probabilities of its tokens", () => {
    const content = [{ token: "a", logprob: -0.1, top_logprobs: [{ token: "b", logprob: -2 }] }];
    const answer = folded(delta({ content: "a" }, { logprobs: { content } }), delta({}, { logprobs: null }));
    expect(answer.tokens).toEqual([{ token: "a", logprob: -0.1, others: [{ token: "b", logprob: -2 }] }]);
  });

  it("ignores what it does not know", () => {
    for (const odd of [null, 1, "x", [], {}, { choices: null }, { choices: [1] }, delta({ content: 5, other: {} })]) {
      expect(folded(odd).text).toBe("");
    }
  });
});

describe("calls of the server's tools", () => {
  it("wait for an approval in the place where they were made", () => {
    const approval = {
      ...{ approval_id: "apr_1", id: "call_1", round: 0, arguments: "{}", expires_at: 99 },
      tool: { name: "files_read", server: "files", label: "read" },
    };
    const waiting = { ...delta({}), agentic_tool_approval_required: approval };
    const answer = folded(delta({ content: "Look:" }), progress("calling", { arguments: "{}" }), waiting);
    expect(answer.calls).toMatchObject([{ phase: "waiting", approvalId: "apr_1", expiresAt: 99, at: 5 }]);
  });

  it("go through their phases", () => {
    const answer = folded(
      progress("calling", { arguments: '{"a":1}' }),
      progress("approved"),
      progress("running", { progress: 1, total: 4, message: "half" }),
      progress("complete", { content: "text", is_error: false, duration_ms: 12 }),
    );
    expect(answer.calls).toHaveLength(1);
    expect(answer.calls?.[0]).toMatchObject({
      ...{ name: "files_read", server: "files", arguments: '{"a":1}', phase: "complete" },
      ...{ result: "text", isError: false, durationMs: 12, progress: "half · 1 / 4" },
    });
  });
});

describe("a denied call", () => {
  it("stays denied when the model reads of it", () => {
    const ending = progress("complete", { content: "It was denied.", is_error: true, duration_ms: 0 });
    const answer = folded(progress("calling"), progress("denied"), ending);
    expect(answer.calls).toMatchObject([{ phase: "denied", result: "It was denied.", isError: true }]);
  });
});

describe("calls of the request's tools", () => {
  it("are put together from their pieces", () => {
    const answer = folded(
      progress("calling"),
      delta({ tool_calls: [{ index: 0, id: "c0", function: { name: "f", arguments: "" } }] }),
      delta({ tool_calls: [{ index: 0, function: { arguments: '{"x"' } }] }),
      delta({ tool_calls: [{ index: 1, id: "c1", function: { name: "g", arguments: "{}" } }] }),
      delta({ tool_calls: [{ index: 0, function: { arguments: ":1}" } }] }),
    );
    const asked = answer.calls?.filter(({ server }) => server === "");
    expect(asked?.map(({ id, name, arguments: text, phase }) => [id, name, text, phase])).toEqual([
      ["c0", "f", '{"x":1}', "asked"],
      ["c1", "g", "{}", "asked"],
    ]);
  });
});

describe("the error of a chunk", () => {
  it("is its message", () => {
    expect(errorIn({ error: { message: "No memory." } })).toBe("No memory.");
    expect(errorIn({ error: "odd" })).toBe("odd");
    expect(errorIn({ error: null })).toBeUndefined();
    expect(errorIn(delta({}))).toBeUndefined();
  });
});
