import { describe, expect, it } from "vitest";
import type { Interval, ModelHistory } from "../api/types";
import { changes, marks, tracks } from "./timeline";

const interval = (state: Interval["state"], began_at: number, ended_at: number | null): Interval => ({
  state,
  began_at,
  ended_at,
  bytes: {},
  cause: null,
  reason: null,
});

const HISTORIES: ModelHistory[] = [
  {
    model_id: "a",
    intervals: [interval("loading", 50, 100), interval("loaded", 100, 150), interval("unloaded", 150, null)],
  },
  { model_id: "b", intervals: [interval("loaded", 20, 90)] },
  { model_id: "c", intervals: [interval("freeing", 180, 181), interval("parked", 181, null)] },
];

describe("tracks", () => {
  it("cuts the intervals to the window, and leaves out models without one", () => {
    const shown = tracks(HISTORIES, 100, 200).map(({ model, blocks }) => [
      model,
      blocks.map(({ from, width }) => [from, width]),
    ]);
    expect(shown).toEqual([
      ["a", [[0, 0.5]]],
      [
        "c",
        [
          [0.8, 0.01],
          [0.81, 0.19],
        ],
      ],
    ]);
  });
});

describe("changes", () => {
  it("lists the latest first, without the states between", () => {
    const shown = changes(HISTORIES, 0, 200, 3).map(({ model, interval: { state } }) => `${model} ${state}`);
    expect(shown).toEqual(["c parked", "a unloaded", "a loaded"]);
  });
});

it("marks round times", () => {
  expect(marks(1_000, 4_600).map(({ at }) => at)).toEqual(
    [1_200, 1_800, 2_400, 3_000, 3_600, 4_200].filter((at) => at % 600 === 0),
  );
});
