import { effect } from "@preact/signals";
import { key } from "./key";
import { refreshServer } from "./server";

const PERIOD_MS = 2_000;

/** Reads the state of the server again and again while the page is visible, and at once with another key. */
export function keepReading(): void {
  let timer = 0;
  const turn = async () => {
    clearTimeout(timer);
    if (document.hidden) return;
    await refreshServer();
    timer = window.setTimeout(turn, PERIOD_MS);
  };
  document.addEventListener("visibilitychange", turn);
  window.addEventListener("online", turn);
  effect(() => {
    key.value;
    void turn();
  });
}
