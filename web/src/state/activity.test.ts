import { expect, it } from "vitest";
import type { Activity } from "../api/types";
import { applied, MAX_KEPT } from "./activity";

const request = (id: number, facts: Partial<Activity> = {}) =>
  ({ id: String(id), arrived_at: id, state: "done", ...facts }) as Activity;

const snapshot = (data: Activity[]) => ({ event: "snapshot", id: null, data: JSON.stringify({ data }) });
const change = (activity: Activity) => ({ event: "request", id: null, data: JSON.stringify(activity) });

const ids = (list: Activity[]) => list.map(({ id }) => id);

it("takes a snapshot in place of what it knew, the latest first", () => {
  expect(ids(applied([request(9)], snapshot([request(1), request(3), request(2)])))).toEqual(["3", "2", "1"]);
});

it("adds a new request at the top, and changes a known one where it is", () => {
  const list = applied([request(2), request(1)], change(request(3)));
  expect(ids(list)).toEqual(["3", "2", "1"]);
  expect(applied(list, change(request(2, { state: "failed" })))[1]?.state).toBe("failed");
});

it("keeps no more than the latest", () => {
  const full = Array.from({ length: MAX_KEPT }, (_, place) => request(MAX_KEPT - place));
  const list = applied(full, change(request(MAX_KEPT + 1)));
  expect([list.length, list[0]?.id, list.at(-1)?.id]).toEqual([MAX_KEPT, String(MAX_KEPT + 1), "2"]);
});

it("leaves the list as it is for an event that it does not know", () => {
  expect(ids(applied([request(1)], { event: "other", id: null, data: "{}" }))).toEqual(["1"]);
});
