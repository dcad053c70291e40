import { expect, it } from "vitest";
import { ApiError, errorOf } from "./errors";
import { isFinal, retryDelay } from "./follow";

it("shows the server's own sentence", async () => {
  const body = JSON.stringify({ error: { message: "The queue of the model is full.", code: "queue_full" } });
  const error = await errorOf(new Response(body, { status: 429, headers: { "retry-after": "3" } }));
  expect(error).toMatchObject({
    status: 429,
    code: "queue_full",
    message: "The queue of the model is full.",
    retryAfterS: 3,
  });
});

it("names the status where a proxy answered in HTML", async () => {
  const error = await errorOf(new Response("<html>", { status: 502, statusText: "Bad Gateway" }));
  expect(error.message).toBe("The server answered 502 Bad Gateway");
});

it("connects again after a lost connection, later each time, and not after a refusal", () => {
  expect([1, 2, 3, 20].map(retryDelay)).toEqual([500, 1000, 2000, 10_000]);
  expect(isFinal(new ApiError(403, "permission_denied", ""))).toBe(true);
  expect(isFinal(new ApiError(503, "shutting_down", ""))).toBe(false);
});
