import { expect, it } from "vitest";
import { parseRoute } from "./route";

it("reads the page, the rest and the query of a place", () => {
  const route = parseRoute("#/chat/3f2a?model=a%2Fb&prompt=Hi%20you");
  expect([route.page, route.rest]).toEqual(["chat", "3f2a"]);
  expect([route.query.get("model"), route.query.get("prompt")]).toEqual(["a/b", "Hi you"]);
});

it.each(["", "#", "#/", "#/nowhere", "#/__proto__"])("shows the models at %j", (hash) => {
  expect(parseRoute(hash).page).toBe("models");
});

it("leaves an escape alone that is none", () => {
  expect(parseRoute("#/activity/100%").rest).toBe("100%");
});
