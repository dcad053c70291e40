import { describe, expect, it } from "vitest";
import { InvalidSettings } from "./request";
import { Session } from "./session";
import { MemoryStore } from "./store";
import { activePath } from "./tree";
import type { Message } from "./types";

interface Sent {
  body: Record<string, unknown>;
  signal: AbortSignal;
  grow: (text: string) => void;
  end: (message?: Partial<Message>) => void;
}

/** A session whose answers end when a test says so. */
function started(store = new MemoryStore()) {
  const sent: Sent[] = [];
  const session = new Session({
    store,
    stream: (message, body, signal, onChange) =>
      new Promise((resolve) => {
        let now = message;
        const end = (last: Partial<Message> = {}) => resolve({ ...now, state: "complete", ...last });
        const grow = (text: string) => {
          now = { ...now, text: now.text + text };
          onChange(now);
        };
        signal.addEventListener("abort", () => end({ state: "stopped" }));
        sent.push({ body, signal, grow, end });
      }),
    defaultModel: () => "smol",
    newId: () => crypto.randomUUID(),
    onProblem: (words) => {
      throw new Error(words);
    },
  });
  const shown = () => activePath(session.shown.value).map(({ message }) => message.text);
  return { session, sent, shown, store };
}

describe("a question", () => {
  it("is answered by the default model, kept, and gives the conversation its title", async () => {
    const { session, sent, shown, store } = started();
    const asked = session.ask({ text: "Why?" });
    expect(session.running.value.size).toBe(1);
    sent[0]?.grow("So.");
    sent[0]?.end();
    await asked;
    expect(shown()).toEqual(["Why?", "So."]);
    expect(sent[0]?.body.model).toBe("smol");
    expect(session.running.value.size).toBe(0);
    expect(session.announcement.value).toContain("smol");
    const kept = await store.load(session.shown.value.head.id);
    expect([...(kept?.messages.values() ?? [])].map(({ text, state }) => [text, state])).toEqual([
      ["Why?", "complete"],
      ["So.", "complete"],
    ]);
    expect(session.heads.value.map(({ title }) => title)).toEqual(["Why?"]);
  });

  it("goes to all chosen models at the same time", async () => {
    const { session, sent } = started();
    session.configure({ models: ["a", "b", "c", "d", "e"] });
    const asked = session.ask({ text: "Why?" });
    expect(sent.map(({ body }) => body.model)).toEqual(["a", "b", "c", "d"]);
    for (const each of sent) each.end();
    await asked;
    expect(activePath(session.shown.value)[1]?.group).toHaveLength(4);
  });

  it("that cannot be sent changes nothing", () => {
    const { session } = started();
    session.configure({ settings: { ...session.shown.value.head.settings, schema: "{" } });
    expect(() => session.ask({ text: "Why?" })).toThrow(InvalidSettings);
    expect(session.shown.value.messages.size).toBe(0);
  });

  it("that is edited is a new branch", async () => {
    const { session, sent, shown } = started();
    const asked = session.ask({ text: "Why?" });
    sent[0]?.end({ text: "So." });
    await asked;
    const [question] = session.shown.value.messages.values();
    const edited = session.ask({ text: "How?" }, question);
    sent[1]?.end({ text: "Thus." });
    await edited;
    expect(shown()).toEqual(["How?", "Thus."]);
    session.select(question as Message);
    expect(shown()).toEqual(["Why?", "So."]);
  });
});

describe("an answer", () => {
  it("can be stopped, and goes on", async () => {
    const { session, sent, shown } = started();
    const asked = session.ask({ text: "Why?" });
    sent[0]?.grow("So");
    session.stop();
    await asked;
    const answer = activePath(session.shown.value)[1]?.message as Message;
    expect(answer).toMatchObject({ text: "So", state: "stopped" });
    const continued = session.continue(answer);
    expect(sent[1]?.body.messages).toEqual([
      { role: "user", content: "Why?" },
      { role: "assistant", content: "So" },
    ]);
    sent[1]?.grow(" on.");
    sent[1]?.end();
    await continued;
    expect(shown()).toEqual(["Why?", "So on."]);
  });

  it("streams on while another conversation is shown", async () => {
    const { session, sent, shown } = started();
    const asked = session.ask({ text: "Why?" });
    const { id } = session.shown.value.head;
    session.begin();
    sent[0]?.grow("So.");
    sent[0]?.end();
    await asked;
    expect(shown()).toEqual([]);
    await session.show(id);
    expect(shown()).toEqual(["Why?", "So."]);
  });

  it("of a page that was closed is shown as cut, with what had arrived", async () => {
    const { session, sent, store } = started();
    const asked = session.ask({ text: "Why?" });
    sent[0]?.grow("So f");
    session.leave();
    // The browser ends the connections of a page that it closes.
    sent[0]?.end({ state: "cut", error: "The connection ended." });
    await asked;
    const reloaded = started(store).session;
    await reloaded.show(session.shown.value.head.id);
    const answer = activePath(reloaded.shown.value)[1]?.message;
    expect(answer).toMatchObject({ text: "So f", state: "cut" });
    expect(answer?.error).toContain("The page was closed");
  });

  it("ends without a trace when its conversation is deleted", async () => {
    const { session, sent, store } = started();
    const asked = session.ask({ text: "Why?" });
    const { id } = session.shown.value.head;
    sent[0]?.grow("So.");
    await session.remove(id);
    await asked;
    expect(sent[0]?.signal.aborted).toBe(true);
    expect(await store.load(id)).toBeUndefined();
    expect(session.heads.value).toEqual([]);
  });
});
