import { expect, it } from "vitest";
import { connection, reached, recoveries, unreachable } from "./connection";

it("counts a return of the server, and tells a wrong key from a lost server", () => {
  reached(200);
  expect([connection.value, recoveries.value]).toEqual(["online", 0]);
  unreachable();
  reached(502);
  expect([connection.value, recoveries.value]).toEqual(["lost", 0]);
  reached(401);
  expect([connection.value, recoveries.value]).toEqual(["refused", 1]);
  reached(403);
  expect([connection.value, recoveries.value]).toEqual(["online", 1]);
});
