import { expect, it } from "vitest";
import type { Model } from "../api/types";
import { commands, found } from "./commands";

const MODEL = { id: "small", state: "unloaded" } as unknown as Model;

const titles = (scopes: ("inference" | "read" | "admin")[], text = "") =>
  found(commands([MODEL], new Set(scopes)), text).map(({ title }) => title);

it("offers what the key may do", () => {
  expect(titles(["read"], "small")).toEqual([]);
  expect(titles(["inference"], "small")).toEqual(["Chat with small"]);
  expect(titles(["inference", "admin"], "small")).toEqual(["Chat with small", "Load small", "Pin small"]);
});

it("finds commands by words in any order, the beginning of a title first", () => {
  expect(titles([], "activity go")).toEqual(["Go to Activity"]);
  expect(titles(["inference", "admin"], "load")).toEqual(["Load small"]);
});
