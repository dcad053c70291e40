import type { LogLine } from "../api/types";

export type Level = "INFO" | "WARNING" | "ERROR";

export const MAX_LINES = 2_000;

const RANKS: Record<string, number> = { DEBUG: 0, INFO: 1, WARNING: 2, ERROR: 3, CRITICAL: 4 };

/** The lines with new ones at their end, without those that are there already, and no more than are kept. Pure. */
export function appended(lines: readonly LogLine[], added: readonly LogLine[]): LogLine[] {
  const known = new Set(lines.map(({ id }) => id));
  return [...lines, ...added.filter(({ id }) => !known.has(id))].slice(-MAX_LINES);
}

/** The lines of at least a level that have all the words. Pure. */
export function matching(lines: readonly LogLine[], level: Level, text: string): LogLine[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const least = RANKS[level] ?? 0;
  return lines.filter((line) => {
    if ((RANKS[line.level] ?? 1) < least) return false;
    const all = `${line.logger} ${line.message}`.toLowerCase();
    return words.every((word) => all.includes(word));
  });
}
