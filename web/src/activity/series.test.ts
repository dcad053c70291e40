import { describe, expect, it } from "vitest";
import type { Activity } from "../api/types";
import { cacheHits, latency, memory, percentile, throughput } from "./series";

const request = (facts: Partial<Activity>): Activity => ({
  id: "a",
  request_id: null,
  model: "m",
  key: null,
  dialect: "openai",
  path: null,
  kind: "text",
  stream: true,
  state: "done",
  arrived_at: 0,
  granted_at: null,
  first_token_at: null,
  ended_at: null,
  prompt_tokens: 0,
  cached_tokens: 0,
  answer_tokens: 0,
  tokens_per_second: null,
  finish_reason: null,
  error: null,
  ...facts,
});

const total = (line: (number | null)[] | undefined) =>
  (line ?? []).reduce<number>((sum, value) => sum + (value ?? 0), 0);

describe("throughput", () => {
  it("has all tokens of a request in it, wherever its phases begin and end", () => {
    const list = [
      request({
        granted_at: 10.2,
        first_token_at: 11.7,
        ended_at: 48.9,
        answer_tokens: 400,
        prompt_tokens: 90,
        cached_tokens: 30,
      }),
    ];
    // 90 buckets of a second.
    const [written, read] = throughput(list, 0, 90).lines;
    expect(total(written)).toBeCloseTo(400);
    expect(total(read)).toBeCloseTo(60);
    expect(written?.[20]).toBeCloseTo(400 / 37.2);
  });

  it("counts an answer that is being written up to now, and only what lies in the window", () => {
    const [written] = throughput([request({ first_token_at: -90, answer_tokens: 180, state: "decode" })], 0, 90).lines;
    expect(total(written)).toBeCloseTo(90);
  });
});

it("takes percentiles from the values that occurred", () => {
  expect([percentile([], 0.5), percentile([3], 0.95), percentile([4, 1, 3, 2], 0.5)]).toEqual([null, 3, 2]);
});

it("has no latency and no share of hits where no request arrived", () => {
  const list = [request({ arrived_at: 5.5, first_token_at: 7.5, prompt_tokens: 10, cached_tokens: 4 })];
  expect(latency(list, 0, 90).lines.map((line) => [line[4], line[5]])).toEqual([
    [null, 2],
    [null, 2],
  ]);
  expect(cacheHits(list, 0, 90).lines[0]?.slice(4, 7)).toEqual([null, 0.4, null]);
});

it("adds up what models took of a pool", () => {
  const interval = { state: "loaded" as const, cause: null, reason: null };
  const histories = [
    { model_id: "a", intervals: [{ ...interval, began_at: 0, ended_at: 45, bytes: { host: 3 } }] },
    { model_id: "b", intervals: [{ ...interval, began_at: 30, ended_at: null, bytes: { host: 4, CUDA0: 9 } }] },
  ];
  const [host, device] = memory(histories, ["host", "CUDA0"], 0, 90).lines;
  expect([host?.[10], host?.[40], host?.[80], device?.[80]]).toEqual([3, 7, 4, 9]);
});
