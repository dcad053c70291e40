/** The one session of the page, which outlives the view: answers stream on while another page is shown. */
import { computed, signal } from "@preact/signals";
import type { Model } from "../api/types";
import { models } from "../state/server";
import { texts } from "../texts/en";
import { toast } from "../ui/toast";
import { openStore } from "./database";
import { Session } from "./session";
import { streamAnswer } from "./stream";
import type { Attachment } from "./types";

/** Null until the browser has opened its conversations. */
export const session = signal<Session | null>(null);

/** What stands in the composer, and the files that are still being read for it. */
export const draft = { text: signal(""), attachments: signal<Attachment[]>([]), reading: signal<File[]>([]) };

function canChat(model: Model): boolean {
  return model.capabilities?.includes("chat") ?? (model.kind !== "embedding" && model.kind !== "rerank");
}

/** Models that answer a chat, by the names under which they are asked. */
export const chatModels = computed(() => models.value.filter(canChat));

/** The name of the model that answers where none is chosen. */
export function defaultModel(): string {
  const found = chatModels.value.find((model) => model.default) ?? chatModels.value[0];
  return found?.id ?? "default";
}

/** An id that no other message or conversation has. `randomUUID` exists on secure pages alone. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

let starting: Promise<void> | undefined;

/** Open the conversations of this browser, once. */
export function startSession(): Promise<void> {
  starting ??= (async () => {
    const store = await openStore();
    const onProblem = (words: string) => toast(words, "bad");
    const made = new Session({ store, stream: streamAnswer, defaultModel, newId, onProblem });
    await made.refresh();
    if (!store.isLasting) toast(texts.chat.notLasting);
    window.addEventListener("pagehide", () => made.leave());
    window.addEventListener("pageshow", () => made.comeBack());
    session.value = made;
  })();
  return starting;
}
