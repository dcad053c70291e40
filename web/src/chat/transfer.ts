/** Conversations as files: JSON, which can be imported again, and Markdown for people. Pure. */
import { activePath } from "./tree";
import {
  type Attachment,
  type ChatSettings,
  type Conversation,
  DEFAULT_SETTINGS,
  MAX_MODELS,
  type Message,
} from "./types";

const FORMAT = "modelyard-conversations";
const VERSION = 1;
/** Of a file that is imported. */
const MAX_CONVERSATIONS = 10_000;
const MAX_MESSAGES = 100_000;

/** A file is not what an export writes, in words for the person. */
export class InvalidFile extends Error {}

type Fields = Record<string, unknown>;

export function toJson(conversations: readonly Conversation[]): string {
  const plain = conversations.map(({ head, messages }) => ({ ...head, messages: [...messages.values()] }));
  return JSON.stringify({ format: FORMAT, version: VERSION, conversations: plain }, null, 1);
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Return `model` with the fields of `value` that have the same types. */
function like<T extends object>(model: T, value: unknown): T {
  if (!isFields(value)) return model;
  const kept = Object.entries(model).map(([name, standard]) => {
    const given = value[name];
    const isSame = typeof given === typeof standard && Array.isArray(given) === Array.isArray(standard);
    return [name, isSame ? given : standard];
  });
  return Object.fromEntries(kept) as T;
}

const NUMBERS = "temperature topP topK minP repetitionPenalty presencePenalty seed maxTokens".split(" ");

function settingsOf(value: unknown): ChatSettings {
  const settings = like(DEFAULT_SETTINGS, value);
  const given = isFields(value) ? value : {};
  const numbers = NUMBERS.filter((name) => Number.isFinite(given[name])).map((name) => [name, given[name]]);
  return {
    ...settings,
    stop: settings.stop.filter((each) => typeof each === "string"),
    ...Object.fromEntries(numbers),
  };
}

const DATA_URL = /^data:(image\/(png|jpeg|gif|webp|avif)|audio\/[\w.+-]+);base64,/i;

function isAttachment(value: unknown): value is Attachment {
  if (!isFields(value) || typeof value.name !== "string" || typeof value.data !== "string") return false;
  // Other addresses would be requested once the attachment is shown.
  return value.kind === "text" || ((value.kind === "image" || value.kind === "audio") && DATA_URL.test(value.data));
}

function messageOf(value: unknown, ids: ReadonlyMap<string, string>, id: string): Message {
  if (!isFields(value) || typeof value.text !== "string" || (value.role !== "user" && value.role !== "assistant")) {
    throw new InvalidFile("A message has no text, or a role that is neither user nor assistant.");
  }
  const parent = typeof value.parent === "string" ? ids.get(value.parent) : null;
  if (parent === undefined) throw new InvalidFile("A message follows one that does not stand before it.");
  const createdAt = typeof value.createdAt === "number" ? value.createdAt : Date.now();
  const message: Message = { id, parent, role: value.role, text: value.text, state: "complete", createdAt };
  if (value.state === "cut" || value.state === "stopped" || value.state === "failed") message.state = value.state;
  if (value.state === "streaming") message.state = "cut";
  for (const name of ["model", "group", "reasoning", "finish", "error"] as const) {
    const given = value[name];
    if (typeof given === "string") message[name] = given;
  }
  if (typeof value.reasoningMs === "number") message.reasoningMs = value.reasoningMs;
  if (Array.isArray(value.attachments)) message.attachments = value.attachments.filter(isAttachment);
  if (Array.isArray(value.calls)) {
    const plain = { id: "", name: "", server: "", arguments: "", phase: "complete", round: 0, at: 0 } as const;
    message.calls = value.calls.filter(isFields).map((call) => ({
      ...like(plain, call),
      ...(typeof call.result === "string" && { result: call.result }),
      ...(typeof call.isError === "boolean" && { isError: call.isError }),
    }));
  }
  if (Array.isArray(value.results)) {
    message.results = value.results.filter(isFields).map((each) => like({ callId: "", text: "" }, each));
  }
  return message;
}

/**
 * Return the conversations of an exported file, with ids of their own, so that none of this browser is replaced.
 *
 * @throws InvalidFile the text is no export.
 */
export function fromJson(json: string, newId: () => string): Conversation[] {
  let file: unknown;
  try {
    file = JSON.parse(json);
  } catch {
    throw new InvalidFile("The file is not JSON.");
  }
  if (!isFields(file) || file.format !== FORMAT || !Array.isArray(file.conversations)) {
    throw new InvalidFile("The file is not an export of conversations.");
  }
  if (file.version !== VERSION) {
    throw new InvalidFile(`The file has version ${String(file.version)}, and this page reads ${VERSION}.`);
  }
  if (file.conversations.length > MAX_CONVERSATIONS) throw new InvalidFile("The file has too many conversations.");
  return file.conversations.map((each) => conversationOf(each, newId));
}

function conversationOf(value: unknown, newId: () => string): Conversation {
  if (!isFields(value) || !Array.isArray(value.messages)) throw new InvalidFile("A conversation has no messages.");
  if (value.messages.length > MAX_MESSAGES) throw new InvalidFile("A conversation has too many messages.");
  const ids = new Map<string, string>();
  const messages = new Map<string, Message>();
  for (const each of value.messages) {
    const id = newId();
    messages.set(id, messageOf(each, ids, id));
    if (isFields(each) && typeof each.id === "string") ids.set(each.id, id);
  }
  const selected: Record<string, string> = {};
  for (const [key, chosen] of Object.entries(isFields(value.selected) ? value.selected : {})) {
    const [from, to] = [key === "" ? "" : ids.get(key), typeof chosen === "string" ? ids.get(chosen) : undefined];
    if (from !== undefined && to !== undefined) selected[from] = to;
  }
  const now = Date.now();
  const head = like({ title: "", isNamed: true, createdAt: now, updatedAt: now, models: [] as string[] }, value);
  const models = head.models.filter((model) => typeof model === "string").slice(0, MAX_MODELS);
  return { head: { ...head, id: newId(), models, settings: settingsOf(value.settings), selected }, messages };
}

/** `text` in a fence that it does not close. */
function fenced(text: string, language: string): string {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${language}\n${text}\n${fence}`;
}

function markdownOf(message: Message): string {
  const parts = [`## ${message.role === "user" ? "User" : (message.model ?? "Assistant")}`];
  for (const { kind, name, data } of message.attachments ?? []) {
    parts.push(kind === "text" ? `${name}:\n\n${fenced(data, "")}` : `*${name}*`);
  }
  if (message.reasoning) parts.push(`<details><summary>Reasoning</summary>\n\n${message.reasoning}\n\n</details>`);
  for (const call of message.calls ?? []) {
    const result = call.result === undefined ? "" : `\n\n${fenced(call.result, "")}`;
    parts.push(`Called \`${call.name}\`:\n\n${fenced(call.arguments, "json")}${result}`);
  }
  if (message.text) parts.push(message.text);
  return parts.join("\n\n");
}

/** The branch that is shown, as Markdown. */
export function toMarkdown(conversation: Conversation): string {
  const { title, settings } = conversation.head;
  const parts = [`# ${title}`];
  if (settings.system) parts.push(`> ${settings.system.replaceAll("\n", "\n> ")}`);
  for (const { group } of activePath(conversation)) parts.push(...group.map(markdownOf));
  return `${parts.join("\n\n")}\n`;
}

/** A name for a file of `title` that every system takes. */
export function fileName(title: string, extension: string): string {
  const plain = title.replace(/[^\p{L}\p{N} ._-]+/gu, " ").replace(/\s+/g, " ");
  return `${plain.replace(/^[ .]+|[ .]+$/g, "").slice(0, 80) || "conversation"}.${extension}`;
}
