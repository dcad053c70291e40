import { describe, expect, it } from "vitest";
import type { NodeModel } from "../api/types";
import { nodeModelText, nodePool } from "./nodes";

const model = (facts: Partial<NodeModel> = {}): NodeModel => ({
  status: "loaded",
  running: 0,
  waiting: 0,
  resident_bytes: 5,
  ...facts,
});

describe("the nodes of a cluster", () => {
  it("have a bar of what their models take", () => {
    const memory = { budget_bytes: 20, used_bytes: 6, free_bytes: 14 };
    const models = { a: model(), b: model({ status: "unloaded", resident_bytes: 0 }) };
    const pool = nodePool({ id: "n", status: "up", memory, models });
    expect([pool.name, pool.budgetBytes, pool.usedBytes]).toEqual(["n", 20, 6]);
    expect(pool.segments).toEqual([{ kind: "model", model: "a", bytes: 5 }]);
  });

  it("say what their models do, and nothing of those that are idle", () => {
    expect(nodeModelText(model())).toBe("");
    expect(nodeModelText(model({ running: 2, waiting: 1 }))).toBe("2 running · 1 waiting");
    expect(nodeModelText(model({ status: "reloading", waiting: 1 }))).toBe("is being loaded · 1 waiting");
    expect(nodeModelText(model({ status: "unloaded", error: "it does not fit" }))).toBe("fails: it does not fit");
  });
});
