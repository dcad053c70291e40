/** The conversations of this page: what is shown, what streams, and how both change. */
import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { texts } from "../texts/en";
import { bodyOf } from "./request";
import { Running } from "./running";
import { byChange, type ConversationStore } from "./store";
import type { streamAnswer } from "./stream";
import { activePath, pathTo, titleOf, withChanged, withMessage, withoutBranch, withSelected } from "./tree";
import type { ChatSettings, Conversation, ConversationHead, Message } from "./types";
import * as types from "./types";

/** What a question consists of. */
export interface Question {
  text: string;
  attachments?: types.Attachment[];
  results?: types.CallResult[];
}

export interface SessionParts {
  store: ConversationStore;
  stream: typeof streamAnswer;
  /** The model of conversations that name none. */
  defaultModel: () => string;
  newId: () => string;
  /** Gets what the person has to know, such as that the browser keeps no conversations. */
  onProblem: (words: string) => void;
}

export class Session {
  /** All conversations that have messages, the last changed one first. */
  readonly heads: Signal<ConversationHead[]> = signal([]);
  readonly shown: Signal<Conversation>;
  /** A sentence for screen readers about the answer that ended last. */
  readonly announcement: Signal<string> = signal("");
  readonly #parts: SessionParts;
  readonly #running: Running;
  /** Conversations with answers that stream, shown or not. */
  readonly #open = new Map<string, Conversation>();

  constructor(parts: SessionParts) {
    this.#parts = parts;
    this.#running = new Running((id, message) => this.#keep(parts.store.saveMessage(id, message)));
    this.shown = signal(this.#draft());
  }

  /** Ids of the answers that stream. */
  get running(): ReadonlySignal<ReadonlySet<string>> {
    return this.#running.ids;
  }

  /** An answer as it is now, which changes with each piece that arrives; undefined: it does not stream. */
  live(id: string): ReadonlySignal<Message> | undefined {
    return this.#running.live(id);
  }

  #draft(): Conversation {
    const now = Date.now();
    const plain = { title: "", isNamed: false, createdAt: now, updatedAt: now, models: [], selected: {} };
    return { head: { ...plain, id: this.#parts.newId(), settings: types.DEFAULT_SETTINGS }, messages: new Map() };
  }

  #keep(saved: Promise<void>): void {
    saved.catch((error: unknown) => {
      this.#parts.onProblem(texts.chat.notKept + (error instanceof Error ? error.message : String(error)));
    });
  }

  async refresh(): Promise<void> {
    this.heads.value = await this.#parts.store.heads();
  }

  /** Show a new conversation, with the models and settings of `like` if it is given. */
  begin(like?: ConversationHead): void {
    const draft = this.#draft();
    const { models, settings } = like ?? draft.head;
    this.shown.value = { ...draft, head: { ...draft.head, models, settings } };
  }

  /** Show a conversation that was kept. Returns whether there is one. */
  async show(id: string): Promise<boolean> {
    if (this.shown.value.head.id === id) return true;
    const found = this.#open.get(id) ?? (await this.#parts.store.load(id));
    if (found === undefined) return false;
    const messages = new Map(found.messages);
    for (const message of messages.values()) {
      // It streamed when its page was closed, and no connection of this page brings the rest.
      const isLost = message.state === "streaming" && !this.running.value.has(message.id);
      if (isLost) messages.set(message.id, { ...message, state: "cut", error: texts.chat.pageClosed });
    }
    this.shown.value = { ...found, messages };
    return true;
  }

  #conversation(id: string): Conversation | undefined {
    return this.shown.value.head.id === id ? this.shown.value : this.#open.get(id);
  }

  #change(conversation: Conversation): void {
    const { id } = conversation.head;
    if (this.shown.value.head.id === id) this.shown.value = conversation;
    if (this.#open.has(id)) this.#open.set(id, conversation);
  }

  #saveHead(head: ConversationHead): void {
    this.heads.value = byChange([head, ...this.heads.value.filter(({ id }) => id !== head.id)]);
    this.#keep(this.#parts.store.saveHead(head));
  }

  /** Change the settings or the models of the shown conversation. */
  configure(change: { settings?: ChatSettings; models?: string[] }): void {
    const { head, messages } = this.shown.value;
    const models = (change.models ?? head.models).slice(0, types.MAX_MODELS);
    const changed = { ...head, ...change, models };
    this.#change({ head: changed, messages });
    if (messages.size > 0) this.#saveHead(changed);
  }

  /**
   * Add a question at the end of the shown branch, or in place of `replaced` as a new branch, and have it answered.
   *
   * @throws InvalidSettings the settings cannot be sent. Nothing has changed then.
   */
  ask(question: Question, replaced?: Message): Promise<void> {
    let conversation = this.shown.value;
    const parent = replaced ? replaced.parent : (activePath(conversation).at(-1)?.message.id ?? null);
    const message: Message = {
      ...{
        id: this.#parts.newId(),
        parent,
        role: "user",
        text: question.text,
        state: "complete",
        createdAt: Date.now(),
      },
      ...(question.attachments?.length ? { attachments: question.attachments } : {}),
      ...(question.results?.length ? { results: question.results } : {}),
    };
    bodyOf([], "", conversation.head.settings);
    conversation = withMessage(conversation, message);
    if (!conversation.head.isNamed && parent === null) {
      const title = titleOf(question.text) || question.attachments?.[0]?.name || texts.chat.untitled;
      conversation = { ...conversation, head: { ...conversation.head, title } };
    }
    this.#saveHead(conversation.head);
    this.#keep(this.#parts.store.saveMessage(conversation.head.id, message));
    const { models } = conversation.head;
    return this.#answer(conversation, message.id, models.length > 0 ? models : [this.#parts.defaultModel()]);
  }

  /** Answer once more what `answer` answers, by the models that answered. */
  async retry(answer: Message): Promise<void> {
    if (answer.parent === null) return;
    const path = activePath(this.shown.value);
    const step = path.find(({ group }) => group.some(({ id }) => id === answer.id));
    const models = (step?.group ?? [answer]).map(({ model }) => model ?? this.#parts.defaultModel());
    await this.#answer(this.shown.value, answer.parent, models);
  }

  async #answer(conversation: Conversation, parent: string, models: readonly string[]): Promise<void> {
    const group = models.length > 1 ? this.#parts.newId() : undefined;
    const answers = models.map((model): Message => {
      const plain = { id: this.#parts.newId(), parent, model, text: "", createdAt: Date.now() };
      return { ...plain, role: "assistant", state: "streaming", ...(group !== undefined && { group }) };
    });
    let grown = answers.reduce(withMessage, conversation);
    const [first] = answers;
    if (first !== undefined) grown = withSelected(grown, first);
    this.#change(grown);
    this.#saveHead(grown.head);
    await Promise.all(answers.map((answer) => this.#run(grown, answer, pathTo(grown, parent))));
  }

  /** Go on with an answer that was cut or stopped. */
  async continue(answer: Message): Promise<void> {
    if (this.running.value.has(answer.id)) return;
    const path = pathTo(this.shown.value, answer.id);
    const streaming: Message = { ...answer, state: "streaming" };
    const changed = withChanged(this.shown.value, streaming);
    this.#change(changed);
    await this.#run(changed, streaming, path);
  }

  async #run(conversation: Conversation, answer: Message, path: readonly Message[]): Promise<void> {
    const { id, settings } = conversation.head;
    if (!this.#open.has(id)) this.#open.set(id, conversation);
    const model = answer.model ?? this.#parts.defaultModel();
    const body = bodyOf(path, model, settings);
    const { stream } = this.#parts;
    const ended = await this.#running.run(id, answer, (signal, onChange) => stream(answer, body, signal, onChange));
    const now = this.#conversation(id);
    if (now !== undefined) this.#change(withChanged(now, ended));
    if (!this.#running.hasAny(id)) this.#open.delete(id);
    this.announcement.value = `${model}: ${texts.chat.states[ended.state]}`;
  }

  /** Stop answers of the shown conversation: one, or all that stream. */
  stop(id?: string): void {
    this.#running.stop(this.shown.value.head.id, id);
  }

  /** Save what streams as it is now, because the page is about to be closed. */
  leave(): void {
    this.#running.leave();
  }

  /** Go on, because the browser shows the page again. */
  comeBack(): void {
    this.#running.comeBack();
  }

  /** Show the branch of `message`. */
  select(message: Message): void {
    const conversation = withSelected(this.shown.value, message);
    this.#change(conversation);
    this.#saveHead(conversation.head);
  }

  /** Delete a message with all that follows it. */
  removeBranch(id: string): void {
    const { rest, removed } = withoutBranch(this.shown.value, id);
    this.#running.discard(rest.head.id, removed);
    this.#change(rest);
    this.#saveHead(rest.head);
    this.#keep(this.#parts.store.removeMessages(rest.head.id, removed));
  }

  rename(id: string, title: string): void {
    const conversation = this.#conversation(id);
    const head = conversation?.head ?? this.heads.value.find((each) => each.id === id);
    if (head === undefined) return;
    const renamed = { ...head, title, isNamed: true };
    if (conversation !== undefined) this.#change({ ...conversation, head: renamed });
    this.#saveHead(renamed);
  }

  async remove(id: string): Promise<void> {
    this.#running.discard(id);
    this.#open.delete(id);
    await this.#parts.store.remove(id);
    this.heads.value = this.heads.value.filter((head) => head.id !== id);
    if (this.shown.value.head.id === id) this.begin(this.shown.value.head);
  }

  /** The conversations with these ids, with what streams as it is now. */
  async conversations(ids: readonly string[]): Promise<Conversation[]> {
    this.#running.save();
    const found = await Promise.all(ids.map((id) => this.#parts.store.load(id)));
    return found.filter((each) => each !== undefined);
  }

  async add(conversations: readonly Conversation[]): Promise<void> {
    for (const each of conversations) await this.#parts.store.saveAll(each);
    await this.refresh();
  }

  search(words: string): Promise<Set<string>> {
    return this.#parts.store.search(words);
  }
}
