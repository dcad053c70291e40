import { expect, it } from "vitest";
import { bytes, count, duration, percent, rate } from "./format";

it.each([
  [0, "0 B"],
  [999, "999 B"],
  [999_600, "1 MB"],
  [123e6, "123 MB"],
  [1.5e9, "1.5 GB"],
  [-5, "0 B"],
])("writes %d bytes as %s", (value, text) => expect(bytes(value)).toBe(text));

it.each([
  [812, "812"],
  [8192, "8.2k"],
  [131_072, "131k"],
  [1_048_576, "1M"],
])("writes a count of %d as %s", (value, text) => expect(count(value)).toBe(text));

it.each([
  [0.3404, "340 ms"],
  [0.9999, "1.0 s"],
  [9.96, "10 s"],
  [59.6, "1 min 00 s"],
  [185, "3 min 05 s"],
  [7_800, "2 h 10 min"],
  [3 * 86_400, "3 days"],
])("writes %d seconds as %s", (value, text) => expect(duration(value)).toBe(text));

it("writes rates and shares", () => expect([rate(7.44), rate(48.2), percent(0.421)]).toEqual(["7.4", "48", "42 %"]));
