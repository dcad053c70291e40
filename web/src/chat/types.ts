/** What a conversation consists of. All values are plain data, which IndexedDB and JSON keep as they are. */

export type Role = "user" | "assistant";

/** A file that a message has. `data` is a data URL for images and sound, and the text itself for texts. */
export interface Attachment {
  kind: "image" | "audio" | "text";
  name: string;
  data: string;
}

/** Where a call of a tool is. `asked`: a tool of this page's request, whose result the person types in. */
export type CallPhase = "calling" | "waiting" | "running" | "approved" | "denied" | "complete" | "asked";

export interface Call {
  id: string;
  name: string;
  /** The MCP server that has the tool; empty: a tool of this page's request. */
  server: string;
  arguments: string;
  phase: CallPhase;
  round: number;
  /** How many characters of the answer stand before the call. */
  at: number;
  progress?: string;
  approvalId?: string;
  /** UNIX seconds at which a call that waits counts as denied. */
  expiresAt?: number;
  result?: string;
  isError?: boolean;
  durationMs?: number;
}

/** The result that the person gave to a call of their own tools. */
export interface CallResult {
  callId: string;
  text: string;
}

/** One token with its likeliest alternatives. Probabilities are natural logarithms. */
export interface TokenChoice {
  token: string;
  logprob: number;
  others: { token: string; logprob: number }[];
}

export interface Figures {
  promptTokens?: number;
  cachedTokens?: number;
  answerTokens?: number;
  reasoningTokens?: number;
  tokensPerSecond?: number;
  /** Milliseconds from the request to the first token, as this page measured it. */
  firstTokenMs?: number;
}

/**
 * `streaming`: it arrives. `cut`: the connection ended before the answer did. `stopped`: the person stopped it.
 * `failed`: the server refused the request or reported an error.
 */
export type MessageState = "complete" | "streaming" | "cut" | "stopped" | "failed";

export interface Message {
  id: string;
  /** The message that this one follows; null: the first of a conversation. */
  parent: string | null;
  role: Role;
  text: string;
  /** Milliseconds since 1970. */
  createdAt: number;
  state: MessageState;
  attachments?: Attachment[];
  results?: CallResult[];
  model?: string;
  /** Answers of one group are those of several models to the same question, shown side by side. */
  group?: string;
  reasoning?: string;
  reasoningMs?: number;
  calls?: Call[];
  tokens?: TokenChoice[];
  figures?: Figures;
  /** The server's finish_reason. */
  finish?: string;
  error?: string;
}

/** How the server's own tools are used. `off`: not at all; `ask`: each call needs an approval. */
export type ServerTools = "configured" | "ask" | "off";

/** Settings of a conversation. Undefined: the model's default. */
export interface ChatSettings {
  system: string;
  temperature?: number;
  topP?: number;
  topK?: number;
  minP?: number;
  repetitionPenalty?: number;
  presencePenalty?: number;
  seed?: number;
  maxTokens?: number;
  stop: string[];
  reasoningEffort: "" | "none" | "low" | "medium" | "high";
  /** A JSON schema that answers follow; empty: none. */
  schema: string;
  /** Tools in OpenAI's form, as the text of a JSON list; empty: none. */
  tools: string;
  serverTools: ServerTools;
  /** How many alternatives to each token are asked for; 0: no probabilities. */
  alternatives: number;
}

export const DEFAULT_SETTINGS: ChatSettings = {
  system: "",
  stop: [],
  reasoningEffort: "",
  schema: "",
  tools: "",
  serverTools: "configured",
  alternatives: 0,
};

/** A conversation without its messages. */
export interface ConversationHead {
  id: string;
  title: string;
  /** Whether the person gave the title, so that no question replaces it. */
  isNamed: boolean;
  createdAt: number;
  updatedAt: number;
  models: string[];
  settings: ChatSettings;
  /** Of messages with several followers, the one that is shown. The key of the conversation's beginning is "". */
  selected: Record<string, string>;
}

export interface Conversation {
  head: ConversationHead;
  /** In the order in which they were added. */
  messages: ReadonlyMap<string, Message>;
}

/** How many models answer a question side by side. */
export const MAX_MODELS = 4;
