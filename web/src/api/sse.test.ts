import { describe, expect, it } from "vitest";
import { readEvents, SseParser } from "./sse";

const STREAM = ': hello\r\nevent: status\r\ndata: {"a":1}\r\nid: 7\r\n\r\ndata: one\ndata: two\n\nevent: lost\n\n';
const EVENTS = [
  { event: "status", data: '{"a":1}', id: "7" },
  { event: "message", data: "one\ntwo", id: "7" },
];

describe("SseParser", () => {
  it("returns the same events wherever the stream is cut", () => {
    for (let cut = 0; cut <= STREAM.length; cut += 1) {
      const parser = new SseParser();
      expect([...parser.feed(STREAM.slice(0, cut)), ...parser.feed(STREAM.slice(cut))], `cut at ${cut}`).toEqual(
        EVENTS,
      );
    }
  });

  it("returns the same events a character at a time", () => {
    const parser = new SseParser();
    expect([...STREAM].flatMap((letter) => parser.feed(letter))).toEqual(EVENTS);
  });
});

describe("readEvents", () => {
  it("keeps a character whole whose bytes arrive in two pieces", async () => {
    const bytes = new TextEncoder().encode("data: grün\n\n");
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(bytes.slice(0, 9));
        controller.enqueue(bytes.slice(9));
        controller.close();
      },
    });
    const events = [];
    for await (const event of readEvents(new Response(body))) events.push(event.data);
    expect(events).toEqual(["grün"]);
  });

  it("cancels the answer when its reader leaves", async () => {
    let isCancelled = false;
    const body = new ReadableStream({
      pull: (controller) => controller.enqueue(new TextEncoder().encode("data: x\n\n")),
      cancel: () => {
        isCancelled = true;
      },
    });
    for await (const _event of readEvents(new Response(body))) break;
    expect(isCancelled).toBe(true);
  });
});
