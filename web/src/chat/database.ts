/** Conversations in the browser's IndexedDB: one record a message, so that a growing answer is all that is written. */
import { byChange, type ConversationStore, contains, isMatch, MemoryStore } from "./store";
import type { Conversation, ConversationHead, Message } from "./types";

interface MessageRecord {
  conversation: string;
  id: string;
  /** Where the message stands in its conversation. */
  place: number;
  message: Message;
}

const DATABASE = "modelyard-chat";
const VERSION = 1;

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function finished(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onerror = () => reject(transaction.error);
    transaction.onabort = () => reject(transaction.error);
  });
}

/** Call `visit` with each record of a store. */
function eachRecord<T>(store: IDBObjectStore, visit: (record: T) => void): void {
  const request = store.openCursor();
  request.onsuccess = () => {
    const cursor = request.result;
    if (cursor === null) return;
    visit(cursor.value as T);
    cursor.continue();
  };
}

/** The keys that begin with `conversation`. An array is greater than any text or number. */
function keysOf(conversation: string): IDBKeyRange {
  return IDBKeyRange.bound([conversation], [conversation, []]);
}

class IndexedStore implements ConversationStore {
  readonly isLasting = true;
  readonly #database: IDBDatabase;
  /** The places of messages that this page has saved, by their conversation and id. */
  readonly #places = new Map<string, number>();

  constructor(database: IDBDatabase) {
    this.#database = database;
  }

  #begin(mode: IDBTransactionMode) {
    const transaction = this.#database.transaction(["heads", "messages"], mode);
    const [heads, messages] = [transaction.objectStore("heads"), transaction.objectStore("messages")];
    return { heads, messages, finished: finished(transaction) };
  }

  async heads(): Promise<ConversationHead[]> {
    return byChange(await done(this.#begin("readonly").heads.getAll()));
  }

  async load(id: string): Promise<Conversation | undefined> {
    const { heads, messages } = this.#begin("readonly");
    const [head, records] = await Promise.all([
      done<ConversationHead | undefined>(heads.get(id)),
      done<MessageRecord[]>(messages.getAll(keysOf(id))),
    ]);
    if (head === undefined) return undefined;
    records.sort((one, other) => one.place - other.place);
    return { head, messages: new Map(records.map((record) => [record.id, record.message])) };
  }

  async saveHead(head: ConversationHead): Promise<void> {
    const begun = this.#begin("readwrite");
    begun.heads.put(head);
    await begun.finished;
  }

  async saveMessage(conversation: string, message: Message): Promise<void> {
    const { messages, finished: end } = this.#begin("readwrite");
    const key = `${conversation} ${message.id}`;
    const put = (place: number) => {
      this.#places.set(key, place);
      messages.put({ conversation, id: message.id, place, message });
    };
    const saved = this.#places.get(key);
    if (saved !== undefined) {
      put(saved);
      // A page that is about to be closed gets no further events, with which the transaction would end by itself.
      messages.transaction.commit();
      await end;
      return;
    }
    const known: IDBRequest<MessageRecord | undefined> = messages.get([conversation, message.id]);
    known.onsuccess = () => {
      if (known.result !== undefined) {
        put(known.result.place);
        return;
      }
      const last = messages.index("place").openKeyCursor(keysOf(conversation), "prev");
      last.onsuccess = () => {
        const key = last.result?.key as [string, number] | undefined;
        put(key === undefined ? 0 : key[1] + 1);
      };
    };
    await end;
  }

  async saveAll({ head, messages: all }: Conversation): Promise<void> {
    const { heads, messages, finished: end } = this.#begin("readwrite");
    heads.put(head);
    let place = 0;
    for (const message of all.values()) {
      messages.put({ conversation: head.id, id: message.id, place, message });
      place += 1;
    }
    await end;
  }

  async removeMessages(conversation: string, ids: readonly string[]): Promise<void> {
    const { messages, finished: end } = this.#begin("readwrite");
    for (const id of ids) messages.delete([conversation, id]);
    await end;
  }

  async remove(id: string): Promise<void> {
    const { heads, messages, finished: end } = this.#begin("readwrite");
    heads.delete(id);
    messages.delete(keysOf(id));
    await end;
  }

  async search(words: string): Promise<Set<string>> {
    const wanted = words.trim().toLocaleLowerCase();
    const found = new Set<string>();
    const { heads, messages, finished: end } = this.#begin("readonly");
    eachRecord<ConversationHead>(heads, (head) => {
      if (contains(head.title, wanted)) found.add(head.id);
    });
    eachRecord<MessageRecord>(messages, ({ conversation, message }) => {
      if (!found.has(conversation) && isMatch(message, wanted)) found.add(conversation);
    });
    await end;
    return found;
  }
}

/** Open the conversations of this browser, or begin with none in memory where the browser keeps nothing. */
export async function openStore(): Promise<ConversationStore> {
  try {
    const request = indexedDB.open(DATABASE, VERSION);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("heads", { keyPath: "id" });
      const messages = request.result.createObjectStore("messages", { keyPath: ["conversation", "id"] });
      messages.createIndex("place", ["conversation", "place"]);
    };
    return new IndexedStore(await done(request));
  } catch (error) {
    if (error instanceof DOMException || error instanceof ReferenceError) return new MemoryStore();
    throw error;
  }
}
