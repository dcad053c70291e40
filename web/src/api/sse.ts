/** One server-sent event. `event` is "message" where the server names none. */
export interface SseEvent {
  event: string;
  data: string;
  id: string | null;
}

/** Parses the text of an event stream as it arrives, in pieces of any size. Comments are dropped. */
export class SseParser {
  #rest = "";
  #event = "";
  #data: string[] = [];
  #id: string | null = null;

  /** The events that are complete with this piece. */
  feed(piece: string): SseEvent[] {
    const events: SseEvent[] = [];
    const text = this.#rest + piece;
    // A carriage return at the end may be the first half of CRLF, so its line waits for the next piece.
    const lines = text.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const event = this.#line(line);
      if (event) events.push(event);
    }
    return events;
  }

  #line(line: string): SseEvent | null {
    if (line === "") return this.#end();
    const colon = line.indexOf(":");
    if (colon === 0) return null;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "id") this.#id = value;
    return null;
  }

  #end(): SseEvent | null {
    const data = this.#data;
    const event = { event: this.#event || "message", data: data.join("\n"), id: this.#id };
    this.#data = [];
    this.#event = "";
    return data.length > 0 ? event : null;
  }
}

/** The events of an answer, until it ends. Leaving the loop cancels the answer. */
export async function* readEvents(response: Response): AsyncGenerator<SseEvent, void, void> {
  if (!response.body) return;
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const parser = new SseParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.feed(decoder.decode(value, { stream: true }));
    }
  } finally {
    // Rejects where the connection is already broken, which is what cancelling is for.
    await reader.cancel().catch(() => undefined);
  }
}
