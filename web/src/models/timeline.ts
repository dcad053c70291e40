import type { Interval, ModelHistory } from "../api/types";

/** A piece of a model's track: where it begins and how wide it is, as shares of the window. */
export interface Block {
  interval: Interval;
  from: number;
  width: number;
}

export interface Track {
  model: string;
  blocks: Block[];
}

/** The tracks of the models that took memory, or failed, within a window of time. Pure. */
export function tracks(histories: readonly ModelHistory[], from: number, to: number): Track[] {
  return histories
    .map(({ model_id, intervals }) => ({ model: model_id, blocks: intervals.flatMap((each) => block(each, from, to)) }))
    .filter(({ blocks }) => blocks.length > 0);
}

function block(interval: Interval, from: number, to: number): Block[] {
  if (interval.state === "unloaded") return [];
  const begin = Math.max(from, interval.began_at);
  const end = Math.min(to, interval.ended_at ?? to);
  if (end <= begin) return [];
  const span = to - from;
  return [{ interval, from: (begin - from) / span, width: (end - begin) / span }];
}

/** A change that is worth a line: what happened to which model, when and why. */
export interface Change {
  model: string;
  at: number;
  interval: Interval;
}

/** The last changes up to a time, the latest first; short-lived states between two others are left out. Pure. */
export function changes(histories: readonly ModelHistory[], from: number, to: number, limit: number): Change[] {
  return histories
    .flatMap(({ model_id, intervals }) =>
      intervals.map((interval) => ({ model: model_id, at: interval.began_at, interval })),
    )
    .filter(({ at, interval }) => at >= from && at <= to && interval.state !== "sizing" && interval.state !== "freeing")
    .sort((a, b) => b.at - a.at)
    .slice(0, limit);
}

/** Times for the marks of the axis, as shares of the window, newest last. */
export function marks(from: number, to: number): { at: number; share: number }[] {
  const span = to - from;
  const step = [60, 300, 600, 900, 1_800].find((seconds) => span / seconds <= 6) ?? 3_600;
  const found = [];
  for (let at = Math.ceil(from / step) * step; at < to; at += step) found.push({ at, share: (at - from) / span });
  return found;
}
