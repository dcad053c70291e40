/** The answers that stream: each is a signal of its own, so that a token renders one message and no list. */
import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { Message } from "./types";

/** Between two renderings of an answer that arrives, in milliseconds. */
const RENDERS_EVERY_MS = 40;
/** Between two copies of an answer in the store while it arrives. A page that is reloaded shows the last one. */
const SAVES_EVERY_MS = 500;

export type Streaming = (signal: AbortSignal, onChange: (message: Message) => void) => Promise<Message>;

interface Answer {
  conversation: string;
  control: AbortController;
  live: Signal<Message>;
  latest: Message;
  renderTimer: ReturnType<typeof setTimeout> | undefined;
  saveTimer: ReturnType<typeof setTimeout> | undefined;
}

export class Running {
  readonly #answers = new Map<string, Answer>();
  readonly #ids: Signal<ReadonlySet<string>> = signal(new Set());
  readonly #save: (conversation: string, message: Message) => void;
  #isLeft = false;

  constructor(save: (conversation: string, message: Message) => void) {
    this.#save = save;
  }

  get ids(): ReadonlySignal<ReadonlySet<string>> {
    return this.#ids;
  }

  live(id: string): ReadonlySignal<Message> | undefined {
    return this.#answers.get(id)?.live;
  }

  hasAny(conversation: string): boolean {
    return [...this.#answers.values()].some((answer) => answer.conversation === conversation);
  }

  /** Run `streaming` for an answer, which is saved while it grows and at its end, and return it as it ended. */
  async run(conversation: string, message: Message, streaming: Streaming): Promise<Message> {
    const answer: Answer = {
      ...{ conversation, control: new AbortController(), live: signal(message), latest: message },
      ...{ renderTimer: undefined, saveTimer: undefined },
    };
    this.#answers.set(message.id, answer);
    this.#ids.value = new Set(this.#answers.keys());
    this.#save(conversation, message);
    try {
      const ended = await streaming(answer.control.signal, (changed) => this.#changed(answer, changed));
      if (this.#has(answer) && !this.#isLeft) this.#save(conversation, ended);
      return ended;
    } finally {
      clearTimeout(answer.renderTimer);
      clearTimeout(answer.saveTimer);
      if (this.#has(answer)) this.#answers.delete(message.id);
      this.#ids.value = new Set(this.#answers.keys());
    }
  }

  /** Whether an answer was not discarded, with the conversation that it belongs to. */
  #has(answer: Answer): boolean {
    return this.#answers.get(answer.latest.id) === answer;
  }

  #changed(answer: Answer, message: Message): void {
    answer.latest = message;
    if (!this.#has(answer)) return;
    answer.renderTimer ??= setTimeout(() => {
      answer.renderTimer = undefined;
      answer.live.value = answer.latest;
    }, RENDERS_EVERY_MS);
    answer.saveTimer ??= setTimeout(() => {
      answer.saveTimer = undefined;
      if (this.#has(answer)) this.#save(answer.conversation, answer.latest);
    }, SAVES_EVERY_MS);
  }

  stop(conversation: string, id?: string): void {
    for (const [key, answer] of this.#answers) {
      if (answer.conversation === conversation && (id === undefined || id === key)) answer.control.abort();
    }
  }

  /** Stop answers of a conversation, and save nothing of them any more. */
  discard(conversation: string, ids?: readonly string[]): void {
    for (const [key, answer] of this.#answers) {
      if (answer.conversation !== conversation || (ids !== undefined && !ids.includes(key))) continue;
      this.#answers.delete(key);
      answer.control.abort();
    }
  }

  save(): void {
    for (const answer of this.#answers.values()) this.#save(answer.conversation, answer.latest);
  }

  /** Save what streams, and nothing later: the browser ends the connections of a page that is left, which is no error. */
  leave(): void {
    this.save();
    this.#isLeft = true;
  }

  /** Save again, because the browser shows a page again that was left. */
  comeBack(): void {
    this.#isLeft = false;
  }
}
