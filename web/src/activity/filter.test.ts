import { expect, it } from "vitest";
import type { Activity } from "../api/types";
import { filtered, NO_FILTERS } from "./filter";

const LIST = [
  { id: "1", state: "decode", model: "a", key: "alice", dialect: "openai" },
  { id: "2", state: "failed", model: "b", key: "bob", dialect: "ollama", error: "engine_error" },
  { id: "3", state: "done", model: "a", key: "bob", dialect: "anthropic" },
] as Activity[];

const ids = (filters: Partial<typeof NO_FILTERS>) => filtered(LIST, { ...NO_FILTERS, ...filters }).map(({ id }) => id);

it("filters requests by group, model and words", () => {
  expect(ids({})).toEqual(["1", "2", "3"]);
  expect(ids({ group: "open" })).toEqual(["1"]);
  expect(ids({ group: "failed" })).toEqual(["2"]);
  expect(ids({ model: "a" })).toEqual(["1", "3"]);
  expect(ids({ text: "BOB  anthropic" })).toEqual(["3"]);
});
