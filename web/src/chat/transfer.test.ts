import { describe, expect, it } from "vitest";
import { fileName, fromJson, InvalidFile, toJson, toMarkdown } from "./transfer";
import { activePath, withMessage } from "./tree";
import { type Conversation, DEFAULT_SETTINGS, type Message } from "./types";

let made = 0;
const newId = () => {
  made += 1;
  return `new${made}`;
};

function message(id: string, parent: string | null, more: Partial<Message> = {}): Message {
  return { id, parent, role: "user", text: `text of ${id}`, createdAt: 5, state: "complete", ...more };
}

const empty: Conversation = {
  head: {
    ...{ id: "c", title: "Boats", isNamed: true, createdAt: 1, updatedAt: 2, models: ["smol"], selected: {} },
    settings: { ...DEFAULT_SETTINGS, system: "Be brief.", temperature: 0.5 },
  },
  messages: new Map(),
};

const talk = [
  message("q", null, { attachments: [{ kind: "text", name: "a.txt", data: "has ``` in it" }] }),
  message("a", "q", { role: "assistant", model: "smol", reasoning: "hm" }),
  message("b", "q", { role: "assistant", state: "streaming" }),
].reduce(withMessage, empty);

const exported = (...messages: object[]) =>
  JSON.stringify({ format: "modelyard-conversations", version: 1, conversations: [{ messages }] });

describe("an export as JSON", () => {
  it("is imported with new ids, and all else as it was", () => {
    const [back] = fromJson(toJson([talk]), newId);
    expect(back?.head).toMatchObject({ title: "Boats", models: ["smol"], settings: talk.head.settings });
    expect(back?.head.id).not.toBe("c");
    expect([...(back?.messages.values() ?? [])].map(({ text, state }) => [text, state])).toEqual([
      ["text of q", "complete"],
      ["text of a", "complete"],
      ["text of b", "cut"],
    ]);
    expect(back && activePath(back).map((step) => step.message.text)).toEqual(["text of q", "text of b"]);
  });

  it.each([
    "nonsense",
    "[]",
    '{"format":"other"}',
    '{"format":"modelyard-conversations","version":2,"conversations":[]}',
    exported({ role: "user" }),
    exported({ role: "system", text: "x" }),
    exported({ role: "user", text: "x", parent: "nobody" }),
    exported({ id: "a", role: "user", text: "x", parent: "b" }, { id: "b", role: "user", text: "x", parent: "a" }),
  ])("that is none is refused: %s", (text) => {
    expect(() => fromJson(text, newId)).toThrow(InvalidFile);
  });

  it("with hostile fields keeps what is harmless", () => {
    const attachments = [
      { kind: "image", name: "x", data: "https://evil.example/x.png" },
      { kind: "image", name: "x", data: "data:image/svg+xml;base64,PHN2Zz4=" },
      { kind: "audio", name: "x", data: "blob:x" },
      { kind: "image", name: "good", data: "data:image/png;base64,AA" },
    ];
    const hostile = {
      role: "user",
      text: "x",
      attachments,
      model: { toString: "x" },
      calls: [{ name: 5 }],
      figures: 1,
    };
    const [back] = fromJson(exported(hostile), newId);
    const [kept] = [...(back?.messages.values() ?? [])];
    expect(kept?.attachments?.map(({ name }) => name)).toEqual(["good"]);
    expect(kept?.model).toBeUndefined();
    expect(kept?.calls?.[0]?.name).toBe("");
  });
});

describe("an export as Markdown", () => {
  it("has the branch that is shown, with fences that its texts do not close", () => {
    const text = toMarkdown(talk);
    expect(text).toContain("# Boats\n\n> Be brief.");
    expect(text).toContain("````\nhas ``` in it\n````");
    expect(text).toContain("text of b");
    expect(text).not.toContain("text of a");
  });
});

describe("the name of a file", () => {
  it.each([
    ["Boats / and: sails?", "Boats and sails.md"],
    ["../../etc", "etc.md"],
    ["", "conversation.md"],
    ["Über 船", "Über 船.md"],
  ])("of %j is %j", (title, name) => {
    expect(fileName(title, "md")).toBe(name);
  });
});
