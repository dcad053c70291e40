import { describe, expect, it } from "vitest";
import type { Model } from "../api/types";
import { waitText } from "./load";

const MODEL = { id: "m", aliases: [], status: "", running: 0, waiting: 1, resident_bytes: 0 };

describe("what an answer waits for", () => {
  it("is the load of its model, then the first token", () => {
    const at = (change: Partial<Model>) => waitText({ ...MODEL, state: "unloaded", ...change });
    expect(at({})).toBe("Waiting until the model is loaded …");
    expect(at({ state: "loading", progress: 0.25, load_seconds: 8 })).toMatch(/loaded: 25\s% · about 6.0 s left …$/);
    expect(at({ state: "loaded" })).toBe("Waiting for the first token …");
    expect(at({ remote: [] })).toBe("Waiting for the first token …");
    expect(waitText(undefined)).toBe("Waiting for the first token …");
  });
});
