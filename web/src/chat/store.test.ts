import "fake-indexeddb/auto";
import { describe, expect, it } from "vitest";
import { openStore } from "./database";
import { type ConversationStore, MemoryStore } from "./store";
import { type Conversation, type ConversationHead, DEFAULT_SETTINGS, type Message } from "./types";

let made = 0;

function head(title: string, updatedAt = 0): ConversationHead {
  made += 1;
  return {
    ...{ id: `c${made}`, title, isNamed: true, createdAt: 0, updatedAt, models: ["smol"], settings: DEFAULT_SETTINGS },
    selected: {},
  };
}

function message(id: string, text = id): Message {
  return { id, parent: null, role: "user", text, createdAt: 0, state: "complete" };
}

function conversation(title: string, ...texts: string[]): Conversation {
  return {
    head: head(title),
    messages: new Map(texts.map((text, index) => [`m${index}`, message(`m${index}`, text)])),
  };
}

const stores: [string, () => Promise<ConversationStore>][] = [
  ["IndexedDB", openStore],
  ["memory", async () => new MemoryStore()],
];

describe.each(stores)("conversations in %s", (_name, open) => {
  it("come back as they were saved", async () => {
    const store = await open();
    const saved = conversation("a", "one", "two");
    await store.saveAll(saved);
    expect(await store.load(saved.head.id)).toEqual(saved);
    expect(await store.load("unknown")).toBeUndefined();
  });

  it("keep the order of their messages when one is replaced", async () => {
    const store = await open();
    const own = head("order");
    await store.saveHead(own);
    // In the order of their ids, `z` would be last.
    for (const id of ["z", "b", "a"]) await store.saveMessage(own.id, message(id));
    await store.saveMessage(own.id, message("z", "changed"));
    const loaded = await store.load(own.id);
    expect([...(loaded?.messages.keys() ?? [])]).toEqual(["z", "b", "a"]);
    expect(loaded?.messages.get("z")?.text).toBe("changed");
  });

  it("are listed with the last changed one first", async () => {
    const store = await open();
    const [older, newer] = [head("older", 1e12), head("newer", 2e12)];
    await store.saveHead(older);
    await store.saveHead(newer);
    expect((await store.heads()).slice(0, 2).map(({ title }) => title)).toEqual(["newer", "older"]);
  });

  it("are found by title and text, in any case", async () => {
    const store = await open();
    const [one, other] = [conversation("Boats", "about sails"), conversation("x", "The GREAT sea")];
    await store.saveAll(one);
    await store.saveAll(other);
    expect(await store.search("boat")).toEqual(new Set([one.head.id]));
    expect(await store.search(" great ")).toEqual(new Set([other.head.id]));
    expect(await store.search("nowhere")).toEqual(new Set());
  });

  it("are removed with their messages, and no others", async () => {
    const store = await open();
    const [gone, kept] = [conversation("gone", "zebra"), conversation("kept", "zebra")];
    await store.saveAll(gone);
    await store.saveAll(kept);
    await store.remove(gone.head.id);
    expect(await store.load(gone.head.id)).toBeUndefined();
    expect(await store.search("zebra")).toEqual(new Set([kept.head.id]));
  });

  it("lose the messages of a branch", async () => {
    const store = await open();
    const saved = conversation("branch", "one", "two");
    await store.saveAll(saved);
    await store.removeMessages(saved.head.id, ["m1"]);
    expect([...((await store.load(saved.head.id))?.messages.keys() ?? [])]).toEqual(["m0"]);
  });
});
