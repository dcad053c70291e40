/** What the chunks of a streamed chat completion add to an answer. Pure. */
import type { Call, CallPhase, Figures, Message, TokenChoice } from "./types";

type Fields = Record<string, unknown>;

/** Times of one clock in milliseconds: when the request was sent, and now. */
export interface Clock {
  sentAt: number;
  now: number;
}

function fields(value: unknown): Fields {
  return typeof value === "object" && value !== null ? (value as Fields) : {};
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function number(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

/** The values that are not undefined. */
function known<T extends object>(values: { [K in keyof T]?: T[K] | undefined }): Partial<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Partial<T>;
}

const PHASES: readonly string[] = ["calling", "running", "approved", "denied", "complete"];

/** Change the call `id`, which is added if it is new. */
function withCall(message: Message, id: string, name: string, server: string, change: Partial<Call>): Message {
  const calls = message.calls ?? [];
  const at = message.text.length;
  const before = calls.find((call) => call.id === id) ?? {
    ...{ id, name, server, arguments: "", phase: "calling" as const, round: 0, at },
  };
  const changed = { ...before, ...change };
  const isNew = !calls.includes(before);
  return { ...message, calls: isNew ? [...calls, changed] : calls.map((call) => (call === before ? changed : call)) };
}

function progressed(message: Message, progress: Fields): Message {
  const data = fields(progress.data);
  const phase = text(progress.phase);
  if (!PHASES.includes(phase)) return message;
  const steps = [number(data.progress), number(data.total)].filter((step) => step !== undefined).join(" / ");
  const id = text(progress.id);
  // A denied call ends with a result, too: what the model reads of the denial.
  const wasDenied = message.calls?.find((call) => call.id === id)?.phase === "denied";
  const change = known<Call>({
    phase: wasDenied ? "denied" : (phase as CallPhase),
    round: number(progress.round),
    arguments: typeof data.arguments === "string" ? data.arguments : undefined,
    progress: phase === "running" ? [text(data.message), steps].filter(Boolean).join(" · ") : undefined,
    result: phase === "complete" ? text(data.content) : undefined,
    isError: typeof data.is_error === "boolean" ? data.is_error : undefined,
    durationMs: number(data.duration_ms),
  });
  return withCall(message, id, text(progress.tool_name), text(progress.server), change);
}

function awaitingApproval(message: Message, approval: Fields): Message {
  const tool = fields(approval.tool);
  const change = known<Call>({
    phase: "waiting",
    round: number(approval.round),
    arguments: text(approval.arguments),
    approvalId: text(approval.approval_id),
    expiresAt: number(approval.expires_at),
  });
  return withCall(message, text(approval.id), text(tool.name), text(tool.server), change);
}

/** Add pieces of calls of the request's own tools, which come under their index among these. */
function asked(message: Message, pieces: readonly Fields[]): Message {
  return pieces.reduce<Message>((grown, piece) => {
    const index = number(piece.index) ?? 0;
    const called = fields(piece.function);
    const before = (grown.calls ?? []).filter((call) => call.server === "")[index];
    const id = before?.id ?? (text(piece.id) || `call_${index}`);
    const change = { phase: "asked" as const, arguments: (before?.arguments ?? "") + text(called.arguments) };
    return withCall(grown, id, text(called.name), "", change);
  }, message);
}

function tokensOf(logprobs: unknown): TokenChoice[] {
  const choice = (each: Fields) => ({ token: text(each.token), logprob: number(each.logprob) ?? 0 });
  return list(fields(logprobs).content)
    .map(fields)
    .map((each) => ({ ...choice(each), others: list(each.top_logprobs).map(fields).map(choice) }));
}

function figuresOf(chunk: Fields, before: Figures, clock: Clock, hasOutput: boolean): Figures {
  const usage = fields(chunk.usage);
  const timings = fields(chunk.timings);
  const isFirst = hasOutput && before.firstTokenMs === undefined;
  return {
    ...before,
    ...known<Figures>({
      firstTokenMs: isFirst ? clock.now - clock.sentAt : undefined,
      promptTokens: number(usage.prompt_tokens),
      cachedTokens: number(fields(usage.prompt_tokens_details).cached_tokens),
      answerTokens: number(usage.completion_tokens) ?? number(timings.predicted_n),
      reasoningTokens: number(fields(usage.completion_tokens_details).reasoning_tokens),
      tokensPerSecond: number(timings.predicted_per_second) || undefined,
    }),
  };
}

/** The error of a chunk that stands in place of an answer's rest; undefined: it is no error. */
export function errorIn(chunk: unknown): string | undefined {
  const { error } = fields(chunk);
  if (error === undefined || error === null) return undefined;
  return text(fields(error).message) || text(error) || JSON.stringify(error);
}

/** Return the answer with what `chunk` adds. Fields that are not known are ignored. */
export function withChunk(message: Message, chunk: unknown, clock: Clock): Message {
  const parts = fields(chunk);
  const choice = fields(list(parts.choices)[0]);
  const delta = fields(choice.delta);
  const [content, thought] = [text(delta.content), text(delta.reasoning_content)];
  const pieces = list(delta.tool_calls).map(fields);
  const hasOutput = Boolean(content || thought || pieces.length > 0);
  const figures = figuresOf(parts, message.figures ?? {}, clock, hasOutput);
  let next: Message = { ...message, text: message.text + content, figures };
  if (thought) next.reasoning = (next.reasoning ?? "") + thought;
  // The time of the reasoning ends with the first text behind it.
  if (thought || (content && next.reasoning && !message.text)) {
    next.reasoningMs = clock.now - clock.sentAt - (figures.firstTokenMs ?? 0);
  }
  const tokens = tokensOf(choice.logprobs);
  if (tokens.length > 0) next.tokens = [...(next.tokens ?? []), ...tokens];
  if (text(choice.finish_reason)) next.finish = text(choice.finish_reason);
  next = asked(next, pieces);
  if (parts.agentic_tool_call_progress) next = progressed(next, fields(parts.agentic_tool_call_progress));
  if (parts.agentic_tool_approval_required) next = awaitingApproval(next, fields(parts.agentic_tool_approval_required));
  return next;
}
