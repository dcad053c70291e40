import type { ClusterNode, NodeModel } from "../api/types";
import { texts } from "../texts/en";
import type { Pool } from "./pools";

/** The colour of a state of a node, as a class of badges and dots. */
export const NODE_LAMPS: Record<ClusterNode["status"], string> = { up: "good", draining: "note", silent: "bad" };

/** The memory of a node, with what each of its models takes. Pure. */
export function nodePool({ id, memory, models }: ClusterNode): Pool {
  const segments = Object.entries(models)
    .filter(([, { resident_bytes }]) => resident_bytes > 0)
    .map(([model, { resident_bytes }]) => ({ kind: "model" as const, model, bytes: resident_bytes }));
  return {
    name: id,
    description: null,
    budgetBytes: memory.budget_bytes,
    usedBytes: memory.used_bytes,
    segments,
  };
}

/** What a model does on a node, in words; "" where it is idle there. Pure. */
export function nodeModelText({ status, running, waiting, error }: NodeModel): string {
  const words = texts.nodes;
  const parts = [
    error ? words.fails(error) : status === "reloading" ? words.loading : null,
    running > 0 ? texts.models.running(running) : null,
    waiting > 0 ? texts.models.waiting(waiting) : null,
  ];
  return parts.filter((part) => part !== null).join(" · ");
}
