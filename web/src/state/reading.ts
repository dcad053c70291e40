import { effect } from "@preact/signals";
import { key } from "./key";
import { changing, models, refreshServer } from "./server";

const PERIOD_MS = 2_000;
const CHANGING_PERIOD_MS = 500;

/**
 * Reads the state of the server again and again while the page is visible: more often while something changes, and at
 * once with another key or when a change begins or ends.
 */
export function keepReading(): void {
  let timer = 0;
  const turn = async () => {
    clearTimeout(timer);
    if (document.hidden) return;
    await refreshServer();
    const isChanging =
      changing.value > 0 ||
      models.value.some(({ state }) => state === "loading" || state === "sizing" || state === "freeing");
    clearTimeout(timer);
    timer = window.setTimeout(turn, isChanging ? CHANGING_PERIOD_MS : PERIOD_MS);
  };
  document.addEventListener("visibilitychange", turn);
  window.addEventListener("online", turn);
  effect(() => {
    key.value;
    changing.value;
    void turn();
  });
}
