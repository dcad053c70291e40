import { expect, it } from "vitest";
import type { Activity } from "../api/types";
import { speeds } from "./speed";

const request = (model: string, state: Activity["state"], tokens_per_second: number | null) =>
  ({ model, state, tokens_per_second }) as Activity;

it("adds up the answers that are being written", () => {
  const found = speeds([request("a", "decode", 20), request("a", "decode", 22), request("a", "done", 90)]);
  expect(found.get("a")).toEqual({ tokensPerSecond: 42, isNow: true });
});

it("shows the last answer where none is being written", () => {
  const found = speeds([request("a", "waiting", null), request("a", "done", 30), request("a", "done", 90)]);
  expect(found.get("a")).toEqual({ tokensPerSecond: 30, isNow: false });
  expect(found.has("b")).toBe(false);
});
