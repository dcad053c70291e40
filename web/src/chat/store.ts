/** Where conversations are kept. */
import type { Conversation, ConversationHead, Message } from "./types";

export interface ConversationStore {
  /** Whether conversations are there after the page was closed. */
  readonly isLasting: boolean;
  /** All conversations, the last changed one first. */
  heads(): Promise<ConversationHead[]>;
  load(id: string): Promise<Conversation | undefined>;
  saveHead(head: ConversationHead): Promise<void>;
  /** Add or replace a message. Messages that are new come behind those that are there. */
  saveMessage(conversation: string, message: Message): Promise<void>;
  saveAll(conversation: Conversation): Promise<void>;
  removeMessages(conversation: string, ids: readonly string[]): Promise<void>;
  remove(id: string): Promise<void>;
  /** Ids of the conversations whose title or messages contain `words`, in any case of letters. */
  search(words: string): Promise<Set<string>>;
}

/** Whether `text` contains `words`, which are in lower case. */
export function contains(text: string, words: string): boolean {
  return text.toLocaleLowerCase().includes(words);
}

/** Whether a message or the name of one of its files contains `words`. */
export function isMatch(message: Message, words: string): boolean {
  return contains(message.text, words) || (message.attachments ?? []).some(({ name }) => contains(name, words));
}

export function byChange(heads: ConversationHead[]): ConversationHead[] {
  return heads.sort((one, other) => other.updatedAt - one.updatedAt);
}

/** Conversations that last as long as the page: some browsers keep nothing in private windows. */
export class MemoryStore implements ConversationStore {
  readonly isLasting = false;
  readonly #all = new Map<string, { head: ConversationHead; messages: Map<string, Message> }>();

  async heads(): Promise<ConversationHead[]> {
    return byChange([...this.#all.values()].map(({ head }) => head));
  }

  async load(id: string): Promise<Conversation | undefined> {
    const found = this.#all.get(id);
    return found && { head: found.head, messages: new Map(found.messages) };
  }

  async saveHead(head: ConversationHead): Promise<void> {
    this.#all.set(head.id, { head, messages: this.#all.get(head.id)?.messages ?? new Map() });
  }

  async saveMessage(conversation: string, message: Message): Promise<void> {
    this.#all.get(conversation)?.messages.set(message.id, message);
  }

  async saveAll({ head, messages }: Conversation): Promise<void> {
    this.#all.set(head.id, { head, messages: new Map(messages) });
  }

  async removeMessages(conversation: string, ids: readonly string[]): Promise<void> {
    for (const id of ids) this.#all.get(conversation)?.messages.delete(id);
  }

  async remove(id: string): Promise<void> {
    this.#all.delete(id);
  }

  async search(words: string): Promise<Set<string>> {
    const wanted = words.trim().toLocaleLowerCase();
    const matches = [...this.#all.values()].filter(
      ({ head, messages }) =>
        contains(head.title, wanted) || [...messages.values()].some((message) => isMatch(message, wanted)),
    );
    return new Set(matches.map(({ head }) => head.id));
  }
}
