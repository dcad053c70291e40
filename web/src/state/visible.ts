import { effect } from "@preact/signals";
import { key } from "./key";

/**
 * Runs work while the page is visible, from the beginning again when it returns or the key changes.
 *
 * A hidden page holds no connection: browsers allow six to a server, for all of its pages together.
 *
 * @returns a function that ends it for good.
 */
export function whileVisible(work: (signal: AbortSignal) => Promise<void>): () => void {
  let running: AbortController | null = null;
  const turn = () => {
    if (document.hidden) {
      running?.abort();
      running = null;
    } else if (!running) {
      running = new AbortController();
      void work(running.signal);
    }
  };
  const restart = () => {
    running?.abort();
    running = null;
    turn();
  };
  document.addEventListener("visibilitychange", turn);
  const endEffect = effect(() => {
    key.value;
    restart();
  });
  return () => {
    endEffect();
    document.removeEventListener("visibilitychange", turn);
    running?.abort();
  };
}
