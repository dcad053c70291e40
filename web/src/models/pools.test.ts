import { describe, expect, it } from "vitest";
import type { Model, ModelHistory } from "../api/types";
import { pools, poolsAt } from "./pools";

const model = (id: string, facts: Partial<Model> = {}): Model => ({
  id,
  aliases: [],
  status: "loaded",
  state: "loaded",
  running: 0,
  waiting: 0,
  resident_bytes: 0,
  ...facts,
});

describe("pools", () => {
  it("divides what a model takes between the host and its devices", () => {
    const memory = {
      budget_bytes: 100,
      used_bytes: 30,
      free_bytes: 70,
      kept_bytes: 10,
      devices: { CUDA0: { budget_bytes: 80, used_bytes: 50, free_bytes: 30 } },
    };
    const [host, device] = pools(memory, [model("a", { resident_bytes: 70, device_bytes: { CUDA0: 50 } }), model("b")]);
    expect(host?.segments).toEqual([
      { kind: "model", model: "a", bytes: 20 },
      { kind: "kept", model: null, bytes: 10 },
    ]);
    expect(device?.segments).toEqual([{ kind: "model", model: "a", bytes: 50 }]);
  });

  it("counts weights once that two models share", () => {
    const memory = { budget_bytes: 100, used_bytes: 50, free_bytes: 50, kept_bytes: 0 };
    const shared = { resident_bytes: 40, shared_bytes: 30 };
    const [host] = pools(memory, [model("a", shared), model("b", shared)]);
    expect(host?.segments.map(({ bytes }) => bytes)).toEqual([10, 10, 30]);
  });

  it("shows what was in memory at an earlier time", () => {
    const interval = { cause: null, reason: null, bytes: { host: 5 } };
    const histories: ModelHistory[] = [
      { model_id: "a", intervals: [{ ...interval, state: "loaded", began_at: 10, ended_at: 20 }] },
      { model_id: "b", intervals: [{ ...interval, state: "loaded", began_at: 20, ended_at: null }] },
    ];
    const today = pools({ budget_bytes: 100, used_bytes: 5, free_bytes: 95, kept_bytes: 0 }, []);
    const shown = [9, 19, 20].map((at) => poolsAt(today, histories, at)[0]?.segments.map((segment) => segment.model));
    expect(shown).toEqual([[], ["a"], ["b"]]);
  });
});
