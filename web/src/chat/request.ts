/** The request for an answer to a path of messages. Pure. */
import type { Attachment, Call, ChatSettings, Message } from "./types";

export type Body = Record<string, unknown>;

/** Settings that cannot be sent, in words for the person. */
export class InvalidSettings extends Error {}

function parsed(json: string, name: string): unknown {
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new InvalidSettings(`${name}: ${error instanceof Error ? error.message : "no JSON"}`);
  }
}

function partOf({ kind, name, data }: Attachment): Body {
  if (kind === "image") return { type: "image_url", image_url: { url: data } };
  if (kind === "audio") return { type: "input_audio", input_audio: { data } };
  return { type: "text", text: `${name}:\n\`\`\`\n${data}\n\`\`\`\n` };
}

function userTurns({ text, attachments = [], results = [] }: Message): Body[] {
  const turns: Body[] = results.map((each) => ({ role: "tool", tool_call_id: each.callId, content: each.text }));
  if (attachments.length > 0) {
    const words = text ? [{ type: "text", text }] : [];
    turns.push({ role: "user", content: [...attachments.map(partOf), ...words] });
  } else if (text) {
    turns.push({ role: "user", content: text });
  }
  return turns;
}

function callOf({ id, name, arguments: text }: Call): Body {
  return { id, type: "function", function: { name, arguments: text } };
}

/** The turns of an answer: its text, and where it was interrupted by calls, the calls with their results. */
function answerTurns(message: Message, withServerTools: boolean): Body[] {
  const calls = (message.calls ?? []).filter(
    (call) => call.server === "" || (withServerTools && call.result !== undefined),
  );
  const turns: Body[] = [];
  let from = 0;
  for (const round of new Set(calls.map((call) => call.round))) {
    const together = calls.filter((call) => call.round === round);
    const at = Math.max(...together.map((call) => call.at));
    turns.push({ role: "assistant", content: message.text.slice(from, at).trim(), tool_calls: together.map(callOf) });
    for (const { id, result } of together) {
      if (result !== undefined) turns.push({ role: "tool", tool_call_id: id, content: result });
    }
    from = at;
  }
  const rest = message.text.slice(from);
  if (rest.trim()) turns.push({ role: "assistant", content: from > 0 ? rest.trimStart() : rest });
  else if (turns.length === 0 && message.reasoning) {
    turns.push({ role: "assistant", content: "", reasoning_content: message.reasoning });
  }
  return turns;
}

/** The messages of a request. An answer at the end of `path` is one that the model goes on with. */
export function messagesOf(path: readonly Message[], settings: ChatSettings): Body[] {
  const system = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
  const turns = path.flatMap((message, index) => {
    if (message.role === "user") return userTurns(message);
    // Reasoning is not sent back, except where it is all that there is of an answer that goes on.
    const isLast = index === path.length - 1;
    return answerTurns(isLast ? message : { ...message, reasoning: "" }, settings.serverTools !== "off");
  });
  return [...system, ...turns];
}

/**
 * Return the body for `POST /v1/chat/completions`.
 *
 * @throws InvalidSettings the schema or the tools are not what they have to be.
 */
export function bodyOf(path: readonly Message[], model: string, settings: ChatSettings): Body {
  const optional: Body = {
    temperature: settings.temperature,
    top_p: settings.topP,
    top_k: settings.topK,
    min_p: settings.minP,
    repetition_penalty: settings.repetitionPenalty,
    presence_penalty: settings.presencePenalty,
    seed: settings.seed,
    max_tokens: settings.maxTokens,
    stop: settings.stop.length > 0 ? settings.stop : undefined,
    reasoning_effort: settings.reasoningEffort || undefined,
  };
  const body: Body = {
    model,
    messages: messagesOf(path, settings),
    stream: true,
    stream_options: { include_usage: true },
    timings_per_token: true,
    ...Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined)),
  };
  if (settings.schema.trim()) {
    const schema = parsed(settings.schema, "Schema");
    if (typeof schema !== "object" || schema === null || Array.isArray(schema)) {
      throw new InvalidSettings("Schema: it has to be a JSON object.");
    }
    body.response_format = { type: "json_schema", json_schema: { name: "answer", schema, strict: true } };
  }
  if (settings.tools.trim()) {
    const tools = parsed(settings.tools, "Tools");
    if (!Array.isArray(tools)) throw new InvalidSettings("Tools: they have to be a JSON list.");
    body.tools = tools;
  }
  if (settings.serverTools === "ask") body.agent_permission = "ask";
  if (settings.serverTools === "off") body.agent_permission = "deny";
  if (settings.alternatives > 0) {
    body.logprobs = true;
    body.top_logprobs = settings.alternatives;
  }
  return body;
}
