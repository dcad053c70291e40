/** A conversation as a tree of messages: edits and retries are branches. Pure: each change returns a new conversation. */
import type { Conversation, ConversationHead, Message } from "./types";

/** One place of the path that is shown. */
export interface Step {
  message: Message;
  /** The answers of several models to one question, this one among them; one entry: no others were asked. */
  group: Message[];
  /** One message for each branch that leaves from the same place, in their order. A group is one branch. */
  branches: Message[];
}

function keyOf(parent: string | null): string {
  return parent ?? "";
}

/** The messages behind each message, in the order in which they were added. */
function followers(messages: ReadonlyMap<string, Message>): Map<string, Message[]> {
  const found = new Map<string, Message[]>();
  for (const message of messages.values()) {
    const siblings = found.get(keyOf(message.parent));
    if (siblings === undefined) found.set(keyOf(message.parent), [message]);
    else siblings.push(message);
  }
  return found;
}

function chosenOf(head: ConversationHead, key: string, siblings: readonly Message[]): Message | undefined {
  return siblings.find(({ id }) => id === head.selected[key]) ?? siblings.at(-1);
}

function branchKey(message: Message): string {
  return message.group ?? message.id;
}

/** The path from the first message to the end of the branch that is chosen. */
export function activePath({ head, messages }: Conversation): Step[] {
  const next = followers(messages);
  const path: Step[] = [];
  let key = "";
  while (path.length < messages.size) {
    const siblings = next.get(key) ?? [];
    const message = chosenOf(head, key, siblings);
    if (message === undefined) break;
    const chosen = branchKey(message);
    const branches = new Map<string, Message>();
    for (const sibling of siblings) {
      const own = branchKey(sibling);
      if (!branches.has(own)) branches.set(own, own === chosen ? message : sibling);
    }
    path.push({
      message,
      group: siblings.filter((each) => branchKey(each) === chosen),
      branches: [...branches.values()],
    });
    key = message.id;
  }
  return path;
}

/** The messages from the first one to `id`, both included; empty: there is no such message. */
export function pathTo({ messages }: Conversation, id: string): Message[] {
  const path: Message[] = [];
  let message = messages.get(id);
  while (message !== undefined && path.length < messages.size) {
    path.unshift(message);
    message = message.parent === null ? undefined : messages.get(message.parent);
  }
  return path;
}

/** Add `message`, and show the branch that it ends. */
export function withMessage(conversation: Conversation, message: Message): Conversation {
  const messages = new Map(conversation.messages).set(message.id, message);
  return withSelected({ head: { ...conversation.head, updatedAt: message.createdAt }, messages }, message);
}

/** Replace a message that is there; a message that was deleted in the meantime stays away. */
export function withChanged(conversation: Conversation, message: Message): Conversation {
  if (!conversation.messages.has(message.id)) return conversation;
  return { ...conversation, messages: new Map(conversation.messages).set(message.id, message) };
}

/** Show the branch of `message` among those that leave from the same place. */
export function withSelected(conversation: Conversation, message: Message): Conversation {
  const selected = { ...conversation.head.selected, [keyOf(message.parent)]: message.id };
  return { ...conversation, head: { ...conversation.head, selected } };
}

/** Remove a message with all that follows it. */
export function withoutBranch(conversation: Conversation, id: string): { rest: Conversation; removed: string[] } {
  const next = followers(conversation.messages);
  const removed: string[] = [];
  const open = conversation.messages.has(id) ? [id] : [];
  for (let key = open.pop(); key !== undefined; key = open.pop()) {
    removed.push(key);
    open.push(...(next.get(key) ?? []).map((message) => message.id));
  }
  const gone = new Set(removed);
  const messages = new Map([...conversation.messages].filter(([key]) => !gone.has(key)));
  const selected = Object.fromEntries(
    Object.entries(conversation.head.selected).filter(([key, value]) => !gone.has(key) && !gone.has(value)),
  );
  return { rest: { head: { ...conversation.head, selected }, messages }, removed };
}

const MAX_TITLE_CHARS = 60;

/** A title for a conversation that begins with `question`. */
export function titleOf(question: string): string {
  const line = question.trim().split("\n", 1)[0]?.replace(/\s+/g, " ") ?? "";
  const characters = [...line];
  return characters.length <= MAX_TITLE_CHARS ? line : `${characters.slice(0, MAX_TITLE_CHARS - 1).join("")}…`;
}
