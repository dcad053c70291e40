import { expect, test } from "vitest";
import { pause } from "./pause";

const LONG_MS = 3_600_000;

test("a pause ends with its signal, or with what wakes it", async () => {
  const control = new AbortController();
  const aborted = pause(LONG_MS, control.signal);
  control.abort();
  await aborted;
  const target = new EventTarget();
  const woken = pause(LONG_MS, new AbortController().signal, [[target, "online"]]);
  target.dispatchEvent(new Event("online"));
  await woken;
});

test("a pause ends by itself", async () => {
  await expect(pause(1, new AbortController().signal)).resolves.toBeUndefined();
});
