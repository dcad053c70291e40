import { expect, it } from "vitest";
import type { LoadPlan } from "../api/types";
import { planSentences } from "./plan";

const MB = 1e6;

const plan = (facts: Partial<LoadPlan>): LoadPlan => ({
  model_id: "big",
  outcome: "fits",
  needed_bytes: 800 * MB,
  free_bytes: 900 * MB,
  budget_bytes: 2048 * MB,
  evicts: [],
  load_seconds: 2.4,
  ...facts,
});

it("explains a load that fits", () => {
  expect(planSentences(plan({}))).toEqual([
    "It fits: it needs 800 MB of the host, where 900 MB of 2.0 GB are free.",
    "A load takes about 2.4 s.",
  ]);
});

it("names who makes room, and why", () => {
  const evicts = [{ model_id: "small", bytes: 300 * MB, reason: "idle for 40 s", device_bytes: { CUDA0: 200 * MB } }];
  expect(planSentences(plan({ outcome: "evicts", evicts }))[1]).toBe("small gives back 500 MB: idle for 40 s.");
});

it("leaves out the host where only a device matters", () => {
  const devices = { CUDA0: { needed_bytes: MB, free_bytes: 2 * MB, budget_bytes: 4 * MB } };
  expect(planSentences(plan({ devices }))[0]).toBe("It fits: it needs 1 MB of CUDA0, where 2 MB of 4 MB are free.");
  expect(planSentences(plan({ devices, needed_bytes: 901 * MB }))[0]).toContain("of the host");
});

it("says what would help a model that never fits", () => {
  expect(planSentences(plan({ outcome: "never" })).at(-1)).toContain("smaller quantisation");
});

it("says on which node of a cluster it is", () => {
  expect(planSentences(plan({ node: "n1" })).at(-1)).toBe("That is on the node n1.");
});
