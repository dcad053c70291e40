import { expect, it } from "vitest";
import { address } from "./address";

it.each([
  ["http://127.0.0.1:1234/ui/", "http://127.0.0.1:1234/v1/models"],
  ["http://127.0.0.1:1234/ui/index.html#/chat/3", "http://127.0.0.1:1234/v1/models"],
  ["https://example.org/llm/ui/?x=1#/models", "https://example.org/llm/v1/models"],
  ["http://localhost:5173/#/models", "http://localhost:5173/v1/models"],
])("finds the API from the page %s", (page, expected) => {
  expect(address("v1/models", page)).toBe(expected);
});
