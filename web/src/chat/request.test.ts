import { describe, expect, it } from "vitest";
import { bodyOf, InvalidSettings, messagesOf } from "./request";
import { type Attachment, type Call, DEFAULT_SETTINGS, type Message, type Role } from "./types";

function message(role: Role, text: string, more: Partial<Message> = {}): Message {
  return { id: text, parent: null, role, text, createdAt: 0, state: "complete", ...more };
}

const call: Call = {
  ...{ id: "c1", name: "read", server: "files", arguments: "{}", phase: "complete", round: 0, at: 6 },
  result: "found",
};

const question = message("user", "Why?");

describe("the messages of a request", () => {
  it("are the path behind the system prompt, without reasoning", () => {
    const path = [question, message("assistant", "So.", { reasoning: "hm" }), message("user", "And?")];
    expect(messagesOf(path, { ...DEFAULT_SETTINGS, system: "Be kind." })).toEqual([
      { role: "system", content: "Be kind." },
      { role: "user", content: "Why?" },
      { role: "assistant", content: "So." },
      { role: "user", content: "And?" },
    ]);
  });

  it("have attachments as parts before the question", () => {
    const attachments: Attachment[] = [
      { kind: "image", name: "a.png", data: "data:image/png;base64,AA" },
      { kind: "audio", name: "a.wav", data: "data:audio/wav;base64,BB" },
      { kind: "text", name: "a.txt", data: "words" },
    ];
    const [turn] = messagesOf([message("user", "What?", { attachments })], DEFAULT_SETTINGS);
    expect(turn?.content).toEqual([
      { type: "image_url", image_url: { url: "data:image/png;base64,AA" } },
      { type: "input_audio", input_audio: { data: "data:audio/wav;base64,BB" } },
      { type: "text", text: "a.txt:\n```\nwords\n```\n" },
      { type: "text", text: "What?" },
    ]);
  });

  it("have the calls of the server's tools where they were made", () => {
    const answer = message("assistant", "Look.\n\nIt is there.", { calls: [call] });
    const turns = messagesOf([question, answer], DEFAULT_SETTINGS).slice(1);
    expect(turns.map(({ role, content }) => [role, content])).toEqual([
      ["assistant", "Look."],
      ["tool", "found"],
      ["assistant", "It is there."],
    ]);
    expect(turns[0]?.tool_calls).toHaveLength(1);
  });

  it("leave the server's tools out where these are off", () => {
    const answer = message("assistant", "Look.\n\nIt is there.", { calls: [call] });
    const turns = messagesOf([question, answer], { ...DEFAULT_SETTINGS, serverTools: "off" });
    expect(turns[1]).toEqual({ role: "assistant", content: "Look.\n\nIt is there." });
  });

  it("have the results that the person gave to calls of the request's tools", () => {
    const asked: Call = { ...call, server: "", phase: "asked", at: 0 };
    delete asked.result;
    const results = [{ callId: "c1", text: "21" }];
    const path = [question, message("assistant", "", { calls: [asked] }), message("user", "", { results })];
    expect(messagesOf(path, DEFAULT_SETTINGS).map(({ role }) => role)).toEqual(["user", "assistant", "tool"]);
  });

  it("end with an answer that goes on, within its reasoning if it has nothing else", () => {
    const cut = messagesOf([question, message("assistant", "The sea ")], DEFAULT_SETTINGS);
    expect(cut.at(-1)).toEqual({ role: "assistant", content: "The sea " });
    const thinking = messagesOf([question, message("assistant", "", { reasoning: "hm" })], DEFAULT_SETTINGS);
    expect(thinking.at(-1)).toEqual({ role: "assistant", content: "", reasoning_content: "hm" });
  });
});

describe("the body of a request", () => {
  it("has no field that the person did not set", () => {
    const fields = ["model", "messages", "stream", "stream_options", "timings_per_token"];
    expect(Object.keys(bodyOf([question], "smol", DEFAULT_SETTINGS))).toEqual(fields);
  });

  it("has the settings under the names of the API", () => {
    const settings = {
      ...DEFAULT_SETTINGS,
      ...{ temperature: 0, topP: 0.9, maxTokens: 5, stop: ["x"], reasoningEffort: "low" as const, alternatives: 3 },
      ...{ schema: '{"type":"object"}', tools: "[]", serverTools: "ask" as const },
    };
    expect(bodyOf([question], "smol", settings)).toMatchObject({
      ...{ temperature: 0, top_p: 0.9, max_tokens: 5, stop: ["x"], reasoning_effort: "low" },
      ...{ logprobs: true, top_logprobs: 3, tools: [], agent_permission: "ask" },
      response_format: { type: "json_schema", json_schema: { schema: { type: "object" } } },
    });
  });

  it.each([{ schema: "{" }, { schema: "[]" }, { tools: "{}" }, { tools: "nonsense" }])(
    "is refused with %j",
    (wrong) => {
      expect(() => bodyOf([question], "smol", { ...DEFAULT_SETTINGS, ...wrong })).toThrow(InvalidSettings);
    },
  );
});
