import { effect } from "@preact/signals";
import { key } from "./key";
import { models, refreshServer } from "./server";

const PERIOD_MS = 2_000;
const LOADING_PERIOD_MS = 500;

/** Reads the state of the server again and again while the page is visible, and at once with another key. */
export function keepReading(): void {
  let timer = 0;
  const turn = async () => {
    clearTimeout(timer);
    if (document.hidden) return;
    await refreshServer();
    const isLoading = models.value.some(
      ({ state }) => state === "loading" || state === "sizing" || state === "freeing",
    );
    clearTimeout(timer);
    timer = window.setTimeout(turn, isLoading ? LOADING_PERIOD_MS : PERIOD_MS);
  };
  document.addEventListener("visibilitychange", turn);
  window.addEventListener("online", turn);
  effect(() => {
    key.value;
    void turn();
  });
}
