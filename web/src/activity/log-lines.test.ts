import { expect, it } from "vitest";
import type { LogLine } from "../api/types";
import { appended, MAX_LINES, matching } from "./log-lines";

const line = (id: number, level = "INFO", message = "text"): LogLine => ({
  id: String(id),
  time: "2026-01-01T00:00:00Z",
  level,
  logger: "modelyard.access",
  message,
});

it("keeps the last lines, each once", () => {
  const many = Array.from({ length: MAX_LINES }, (_, id) => line(id));
  const lines = appended(many, [line(MAX_LINES - 1), line(MAX_LINES)]);
  expect([lines.length, lines[0]?.id, lines.at(-1)?.id]).toEqual([MAX_LINES, "1", String(MAX_LINES)]);
});

it("filters lines by level and words", () => {
  const lines = [line(1), line(2, "WARNING", "Slow client"), line(3, "ERROR", "Engine died"), line(4, "CRITICAL", "x")];
  const ids = (level: "INFO" | "WARNING" | "ERROR", text: string) => matching(lines, level, text).map(({ id }) => id);
  expect([ids("INFO", ""), ids("WARNING", ""), ids("ERROR", "engine access"), ids("INFO", "slow")]).toEqual([
    ["1", "2", "3", "4"],
    ["2", "3", "4"],
    ["3"],
    ["2"],
  ]);
});
