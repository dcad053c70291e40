// What programs in JavaScript do with their own clients. Prints one JSON object with what they were told.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const baseURL = process.argv[2];
const MODEL = "smollm2";
const question = [{ role: "user", content: "What is the weather in Rome?" }];
const Weather = z.object({ city: z.enum(["Oslo", "Rome"]) });
const parameters = {
  type: "object",
  properties: { city: { type: "string", enum: ["Oslo", "Rome"] } },
  required: ["city"],
  additionalProperties: false,
};

const openai = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0, timeout: 60_000 });
const anthropic = new Anthropic({ baseURL: baseURL.replace(/\/v1$/, ""), apiKey: "unused", maxRetries: 0, timeout: 60_000 });
const yard = createOpenAICompatible({ name: "modelyard", baseURL, includeUsage: true, supportsStructuredOutputs: true });

const tests = {
  async "openai: a chat is streamed with its usage"() {
    const stream = openai.chat.completions.stream({
      model: MODEL, messages: question, max_tokens: 6, temperature: 0, stream_options: { include_usage: true },
    });
    let text = "";
    stream.on("content", (delta) => { text += delta; });
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices[0].message.content, text);
    assert.equal(final.usage.completion_tokens, 6);
  },
  async "openai: an answer is parsed by a zod schema"() {
    const answer = await openai.chat.completions.parse({
      model: MODEL, messages: question, max_tokens: 40, temperature: 0,
      response_format: zodResponseFormat(Weather, "weather"),
    });
    assert.ok(["Oslo", "Rome"].includes(answer.choices[0].message.parsed.city));
  },
  async "openai: runTools calls, sends the result and ends"() {
    const cities = [];
    const runner = openai.chat.completions.runTools({
      model: MODEL, messages: question, max_tokens: 40, temperature: 0, stream: true,
      tool_choice: { type: "function", function: { name: "get_weather" } },
      tools: [{
        type: "function",
        function: {
          name: "get_weather", parameters, parse: JSON.parse,
          function: ({ city }) => { cities.push(city); return "Sunny."; },
        },
      }],
    }, { maxChatCompletions: 2 });
    await runner.done();
    assert.ok(cities.length > 0 && cities.every((city) => ["Oslo", "Rome"].includes(city)));
    assert.ok(runner.messages.some((message) => message.role === "tool" && message.content === "Sunny."));
  },
  async "openai: a response is streamed"() {
    const stream = openai.responses.stream({ model: MODEL, input: "Hello!", max_output_tokens: 6 });
    let text = "";
    stream.on("response.output_text.delta", (event) => { text += event.delta; });
    const response = await stream.finalResponse();
    assert.equal(response.output_text, text);
  },
  async "openai: a chat model makes no vectors"() {
    const refused = await openai.embeddings.create({ model: MODEL, input: "Hi" }).catch((error) => error);
    assert.ok(refused instanceof OpenAI.BadRequestError);
    assert.equal(refused.code, "unsupported_operation");
  },
  async "openai: a model that is not there is a NotFoundError"() {
    const refused = await openai.chat.completions.create({ model: "nobody", messages: question }).catch((error) => error);
    assert.ok(refused instanceof OpenAI.NotFoundError);
    assert.equal(refused.code, "model_not_found");
    assert.ok(refused.requestID);
  },
  async "openai: models are listed"() {
    const ids = [];
    for await (const model of openai.models.list()) ids.push(model.id);
    assert.deepEqual(ids, ["smollm2", "google/gemma3"]);
  },
  async "anthropic: a message is streamed with its usage"() {
    const stream = anthropic.messages.stream({ model: MODEL, messages: question, max_tokens: 6, temperature: 0 });
    let text = "";
    stream.on("text", (delta) => { text += delta; });
    const final = await stream.finalMessage();
    assert.equal(final.content[0].text, text);
    assert.equal(final.stop_reason, "max_tokens");
    assert.equal(final.usage.output_tokens, 6);
    const counted = await anthropic.messages.countTokens({ model: MODEL, messages: question });
    assert.equal(counted.input_tokens, final.usage.input_tokens + (final.usage.cache_read_input_tokens ?? 0));
  },
  async "anthropic: a tool is called"() {
    const message = await anthropic.messages.create({
      model: MODEL, messages: question, max_tokens: 40, temperature: 0,
      tools: [{ name: "get_weather", input_schema: parameters }], tool_choice: { type: "tool", name: "get_weather" },
    });
    const call = message.content.find((block) => block.type === "tool_use");
    assert.ok(["Oslo", "Rome"].includes(call.input.city));
    assert.equal(message.stop_reason, "tool_use");
  },
  async "anthropic: a model that is not there is a NotFoundError"() {
    const refused = await anthropic.messages.create({ model: "nobody", messages: question, max_tokens: 5 }).catch((error) => error);
    assert.ok(refused instanceof Anthropic.NotFoundError);
  },
  async "ai: text is generated"() {
    const { text, usage, finishReason } = await generateText({
      model: yard(MODEL), prompt: "Tell me a story.", maxOutputTokens: 6, temperature: 0, maxRetries: 0,
    });
    assert.ok(text);
    assert.equal(finishReason, "length");
    assert.equal(usage.outputTokens, 6);
  },
  async "ai: text is streamed"() {
    const result = streamText({ model: yard(MODEL), prompt: "Tell me a story.", maxOutputTokens: 6, temperature: 0, maxRetries: 0 });
    let text = "";
    for await (const part of result.textStream) text += part;
    assert.equal(await result.text, text);
    assert.equal((await result.usage).outputTokens, 6);
  },
  async "ai: an object follows its schema"() {
    const { object } = await generateObject({
      model: yard(MODEL), schema: Weather, messages: question, maxOutputTokens: 40, temperature: 0, maxRetries: 0,
    });
    assert.ok(["Oslo", "Rome"].includes(object.city));
  },
  async "ai: a tool is called in two steps of a stream"() {
    const cities = [];
    const result = streamText({
      model: yard(MODEL), messages: question, maxOutputTokens: 40, temperature: 0, maxRetries: 0,
      toolChoice: "required", stopWhen: stepCountIs(2),
      tools: {
        get_weather: tool({
          description: "Tell the weather.", inputSchema: Weather,
          execute: async ({ city }) => { cities.push(city); return { sky: "clear" }; },
        }),
      },
    });
    for await (const part of result.fullStream) if (part.type === "error") throw part.error;
    const steps = await result.steps;
    assert.deepEqual(steps.map((step) => step.finishReason), ["tool-calls", "tool-calls"]);
    assert.ok(cities.length > 0 && cities.every((city) => ["Oslo", "Rome"].includes(city)));
  },
  async "ai: a refusal tells its status and its words"() {
    const refused = await generateText({ model: yard("nobody"), prompt: "Hi", maxRetries: 0 }).catch((error) => error);
    assert.equal(refused.statusCode, 404);
    assert.match(refused.message, /'nobody' does not exist/);
  },
};

const failures = {};
for (const [name, test] of Object.entries(tests)) {
  await test().catch((error) => { failures[name] = error.stack ?? String(error); });
}
console.log(JSON.stringify({ run: Object.keys(tests).length, failures }));
