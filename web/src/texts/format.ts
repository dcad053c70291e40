/** Numbers, sizes and times as people read them. */

/** A size in powers of 1000, written as the command line writes it: "1.5 GB", "222 MB". */
export function bytes(count: number): string {
  const value = Math.max(0, count);
  if (value >= 999.5e6) return `${(value / 1e9).toFixed(1)} GB`;
  if (value >= 999.5e3) return `${Math.round(value / 1e6)} MB`;
  return value >= 1_000 ? `${Math.round(value / 1e3)} kB` : `${Math.round(value)} B`;
}

/** A count in short: "812", "8.2k", "131k", "1.2M". */
export function count(value: number): string {
  if (value < 1_000) return String(Math.round(value));
  if (value < 10_000) return `${(value / 1_000).toFixed(1).replace(/\.0$/, "")}k`;
  if (value < 1_000_000) return `${Math.round(value / 1_000)}k`;
  return `${(value / 1_000_000).toFixed(1).replace(/\.0$/, "")}M`;
}

/** A duration with about two digits: "340 ms", "2.4 s", "48 s", "3 min 05 s", "2 h 10 min". */
export function duration(seconds: number): string {
  const value = Math.max(0, seconds);
  if (value < 0.9995) return `${Math.round(value * 1_000)} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  if (whole < 3_600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.round(minutes / 1_440)} days`;
}

/** Tokens per second: "7.4", "48". */
export function rate(value: number): string {
  return value < 10 ? value.toFixed(1) : String(Math.round(value));
}

/** A share from 0 to 1: "42 %". */
export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** A time of today, in the time zone of the browser: "16:04:09". */
export function clock(unixSeconds: number): string {
  return CLOCK.format(unixSeconds * 1_000);
}

/** A day and a time: "30 Nov, 16:04". */
export function day(unixSeconds: number): string {
  return DAY.format(unixSeconds * 1_000);
}
