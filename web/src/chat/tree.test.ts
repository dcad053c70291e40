import { describe, expect, it } from "vitest";
import { activePath, pathTo, titleOf, withChanged, withMessage, withoutBranch, withSelected } from "./tree";
import { type Conversation, DEFAULT_SETTINGS, type Message, type Role } from "./types";

const empty: Conversation = {
  head: {
    ...{ id: "c", title: "", isNamed: false, createdAt: 0, updatedAt: 0, models: [], settings: DEFAULT_SETTINGS },
    selected: {},
  },
  messages: new Map(),
};

function message(id: string, parent: string | null, role: Role = "user", group?: string): Message {
  const plain: Message = { id, parent, role, text: id, createdAt: 1, state: "complete" };
  return group === undefined ? plain : { ...plain, group };
}

function made(...messages: Message[]): Conversation {
  return messages.reduce(withMessage, empty);
}

const shown = (conversation: Conversation) => activePath(conversation).map((step) => step.message.id);

const talk = made(message("q1", null), message("a1", "q1", "assistant"), message("q2", "a1"));

describe("the path that is shown", () => {
  it("is empty without messages", () => {
    expect(activePath(empty)).toEqual([]);
  });

  it("follows the messages", () => {
    expect(shown(talk)).toEqual(["q1", "a1", "q2"]);
  });

  it("takes an edited question as a new branch, from which the old one can be reached", () => {
    const edited = withMessage(talk, message("q1b", null));
    expect(shown(edited)).toEqual(["q1b"]);
    expect(activePath(edited)[0]?.branches.map(({ id }) => id)).toEqual(["q1", "q1b"]);
    expect(shown(withSelected(edited, message("q1", null)))).toEqual(["q1", "a1", "q2"]);
  });

  it("keeps the branch that was chosen further down", () => {
    const retried = withMessage(talk, message("a1b", "q1", "assistant"));
    const back = withSelected(retried, message("a1", "q1"));
    const elsewhere = withMessage(back, message("x", null));
    expect(shown(withSelected(elsewhere, message("q1", null)))).toEqual(["q1", "a1", "q2"]);
  });

  it("shows answers of several models as one branch", () => {
    const compared = made(
      message("q", null),
      message("a", "q", "assistant", "g"),
      message("b", "q", "assistant", "g"),
      message("c", "q", "assistant"),
    );
    const first = activePath(compared)[1];
    expect(first?.message.id).toBe("c");
    expect(first?.branches.map(({ id }) => id)).toEqual(["a", "c"]);
    const second = activePath(withSelected(compared, message("b", "q")))[1];
    expect(second?.group.map(({ id }) => id)).toEqual(["a", "b"]);
    expect(second?.branches.map(({ id }) => id)).toEqual(["b", "c"]);
  });

  it("ends where messages follow each other in a circle", () => {
    const messages = new Map([
      ["a", message("a", "b")],
      ["b", message("b", "a")],
    ]);
    expect(activePath({ ...empty, messages })).toEqual([]);
    expect(pathTo({ ...empty, messages }, "a")).toHaveLength(2);
  });
});

describe("changes", () => {
  it("leave the conversation before them as it was", () => {
    withMessage(talk, message("q3", "q2"));
    expect(talk.messages.size).toBe(3);
  });

  it("replace a message in its place", () => {
    const changed = withChanged(talk, { ...message("a1", "q1", "assistant"), text: "new" });
    expect([...changed.messages.keys()]).toEqual(["q1", "a1", "q2"]);
    expect(changed.messages.get("a1")?.text).toBe("new");
  });

  it("do not bring a message back that was deleted", () => {
    const { rest } = withoutBranch(talk, "a1");
    expect(withChanged(rest, message("a1", "q1")).messages.has("a1")).toBe(false);
  });

  it("delete a message with all that follows", () => {
    const { rest, removed } = withoutBranch(talk, "a1");
    expect(removed.sort()).toEqual(["a1", "q2"]);
    expect(shown(rest)).toEqual(["q1"]);
    expect(rest.head.selected).toEqual({ "": "q1" });
  });
});

describe("the title", () => {
  it("is the first line of the question", () => {
    expect(titleOf("  What   is this?\nmore")).toBe("What is this?");
  });

  it("is cut between characters", () => {
    expect([...titleOf("😀".repeat(100))]).toHaveLength(60);
  });
});
