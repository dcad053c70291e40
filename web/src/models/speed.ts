import type { Activity } from "../api/types";

export interface Speed {
  tokensPerSecond: number;
  /** Whether answers are written now; else it is the speed of the last answer. */
  isNow: boolean;
}

/** How fast each model writes: all its answers together, or the last one where none is being written. Pure. */
export function speeds(activities: readonly Activity[]): Map<string, Speed> {
  const found = new Map<string, Speed>();
  for (const { model, state, tokens_per_second: rate } of activities) {
    if (state !== "decode" || !rate) continue;
    const before = found.get(model)?.tokensPerSecond ?? 0;
    found.set(model, { tokensPerSecond: before + rate, isNow: true });
  }
  // The latest request is the first one of the list.
  for (const { model, tokens_per_second: rate } of activities) {
    if (rate && !found.has(model)) found.set(model, { tokensPerSecond: rate, isNow: false });
  }
  return found;
}
