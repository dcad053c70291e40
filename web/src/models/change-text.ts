import type { Interval } from "../api/types";
import { texts } from "../texts/en";
import { bytes } from "../texts/format";

/** An interval in words: "loaded, 812 MiB: its load took 2 s". Pure. */
export function changeText({ state, bytes: taken, reason }: Interval, since?: string): string {
  const size = Object.values(taken).reduce((sum, each) => sum + each, 0);
  const parts = [since && `${since}:`, texts.models.states[state] + (size > 0 ? `, ${bytes(size)}` : "")];
  return parts.filter(Boolean).join(" ") + (reason ? `: ${reason}` : "");
}
