import type { Activity, ModelHistory } from "../api/types";

/** Lines over a common axis of time: xs in seconds since 1970, and for each line a value or null at each of them. */
export interface Series {
  xs: number[];
  lines: (number | null)[][];
}

const BUCKETS = 90;

interface Axis {
  xs: number[];
  step: number;
  from: number;
}

function axis(from: number, to: number): Axis {
  const step = (to - from) / BUCKETS;
  return { xs: Array.from({ length: BUCKETS }, (_, place) => from + (place + 0.5) * step), step, from };
}

/** Tokens per second that were written, and computed of prompts. Tokens count evenly over their phase. Pure. */
export function throughput(list: readonly Activity[], from: number, to: number): Series {
  const { xs, step } = axis(from, to);
  const written = new Array<number>(BUCKETS).fill(0);
  const read = new Array<number>(BUCKETS).fill(0);
  for (const activity of list) {
    const { granted_at: granted, first_token_at: first, ended_at: ended } = activity;
    if (first !== null) spread(written, activity.answer_tokens, first, ended ?? to, from, step);
    const computed = Math.max(0, activity.prompt_tokens - activity.cached_tokens);
    if (granted !== null) spread(read, computed, granted, first ?? ended ?? to, from, step);
  }
  return { xs, lines: [written, read] };
}

/** Adds an amount to buckets, as a rate per second, evenly between two times. */
function spread(buckets: number[], amount: number, begin: number, end: number, from: number, step: number): void {
  // What took no time counts in the bucket of its moment.
  const length = Math.max(end - begin, 0.001);
  const first = Math.max(0, Math.floor((begin - from) / step));
  const last = Math.min(buckets.length - 1, Math.floor((begin + length - from) / step));
  for (let place = first; place <= last; place += 1) {
    const low = Math.max(begin, from + place * step);
    const high = Math.min(begin + length, from + (place + 1) * step);
    if (high > low) buckets[place] = (buckets[place] ?? 0) + (amount * (high - low)) / length / step;
  }
}

/** Median and 95th percentile of the time to the first token, by when requests arrived; null without any. Pure. */
export function latency(list: readonly Activity[], from: number, to: number): Series {
  const { xs, step } = axis(from, to);
  const times: number[][] = xs.map(() => []);
  for (const { arrived_at: arrived, first_token_at: first } of list) {
    if (first !== null) times[Math.floor((arrived - from) / step)]?.push(first - arrived);
  }
  return { xs, lines: [0.5, 0.95].map((share) => times.map((each) => percentile(each, share))) };
}

/** The smallest value that at least this share of the values do not exceed; null of none. */
export function percentile(values: readonly number[], share: number): number | null {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? null;
}

/** Share of prompt tokens that were cached, by when requests arrived; null without any. Pure. */
export function cacheHits(list: readonly Activity[], from: number, to: number): Series {
  const { xs, step } = axis(from, to);
  const prompt = xs.map(() => 0);
  const cached = xs.map(() => 0);
  for (const activity of list) {
    const place = Math.floor((activity.arrived_at - from) / step);
    if (place < 0 || place >= BUCKETS) continue;
    prompt[place] = (prompt[place] ?? 0) + activity.prompt_tokens;
    cached[place] = (cached[place] ?? 0) + activity.cached_tokens;
  }
  return { xs, lines: [prompt.map((all, place) => (all > 0 ? (cached[place] ?? 0) / all : null))] };
}

/** Bytes that models took of each pool, in the order of `pools`. Pure. */
export function memory(histories: readonly ModelHistory[], pools: readonly string[], from: number, to: number): Series {
  const { xs } = axis(from, to);
  const lines = pools.map((pool) =>
    xs.map((at) => {
      let sum = 0;
      for (const { intervals } of histories) {
        const now = intervals.find(({ began_at, ended_at }) => began_at <= at && (ended_at ?? Infinity) > at);
        sum += now?.bytes[pool] ?? 0;
      }
      return sum;
    }),
  );
  return { xs, lines };
}
