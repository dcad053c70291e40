import type { LoadPlan } from "../api/types";
import { texts } from "../texts/en";
import { bytes, duration } from "../texts/format";

/** What keeps a model from being loaded, or what its load does, in sentences. Pure. */
export function planSentences(plan: LoadPlan): string[] {
  return present(...outcome(plan), plan.node ? texts.plan.node(plan.node) : null);
}

function outcome(plan: LoadPlan): string[] {
  const words = texts.plan;
  const load = plan.load_seconds > 0 ? words.takes(duration(plan.load_seconds)) : null;
  const needs = needed(plan);
  switch (plan.outcome) {
    case "loaded":
      return [words.loaded];
    case "loading":
      return [words.loading];
    case "fits":
      return present(words.fits(needs), load);
    case "evicts":
      return present(words.evicts(needs), ...evictions(plan), load);
    case "waits":
      return present(words.waits(needs), ...evictions(plan));
    case "never":
      return [words.never(needs), words.neverHelp];
  }
}

function needed(plan: LoadPlan): string {
  const pools = Object.entries(plan.devices ?? {}).map(([pool, { needed_bytes, free_bytes, budget_bytes }]) =>
    texts.plan.pool(bytes(needed_bytes), pool, bytes(free_bytes), bytes(budget_bytes)),
  );
  const host = texts.plan.pool(
    bytes(plan.needed_bytes),
    texts.plan.host,
    bytes(plan.free_bytes),
    bytes(plan.budget_bytes),
  );
  // A model on a device takes little of the host, which only matters where it is short.
  const isHostShort = plan.needed_bytes > plan.free_bytes;
  return (pools.length === 0 || isHostShort ? [host, ...pools] : pools).join("; ");
}

function evictions(plan: LoadPlan): string[] {
  return plan.evicts.map((evicted) => {
    const onDevices = Object.values(evicted.device_bytes ?? {}).reduce((sum, size) => sum + size, 0);
    return texts.plan.evicted(evicted.model_id, bytes(evicted.bytes + onDevices), evicted.reason);
  });
}

function present(...sentences: (string | null)[]): string[] {
  return sentences.filter((sentence) => sentence !== null);
}
