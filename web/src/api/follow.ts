import { open } from "./client";
import { ApiError, isAbort } from "./errors";
import { pause } from "./pause";
import { readEvents, type SseEvent } from "./sse";

export type FollowState = "connecting" | "open" | "lost" | "refused";

export interface Following {
  onEvent: (event: SseEvent) => void;
  /** "lost" is tried again; "refused" (401, 403, 404) is final, with the server's error. */
  onState?: (state: FollowState, error?: unknown) => void;
}

const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 10_000;

/** Milliseconds before attempt number `failures` (1, 2, …) to connect again. */
export function retryDelay(failures: number): number {
  return Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.max(0, failures - 1));
}

/** Whether connecting again cannot help, because the server has understood and refused. */
export function isFinal(error: unknown): boolean {
  return error instanceof ApiError && [400, 401, 403, 404, 405].includes(error.status);
}

/** Follows an event stream until the signal, connecting again after the server or the network was away. */
export async function follow(path: string, to: Following, signal: AbortSignal): Promise<void> {
  let failures = 0;
  let lastId: string | null = null;
  while (!signal.aborted) {
    to.onState?.("connecting");
    try {
      const headers = lastId === null ? {} : { "last-event-id": lastId };
      const response = await open(path, { signal, headers: { accept: "text/event-stream", ...headers } });
      to.onState?.("open");
      failures = 0;
      for await (const event of readEvents(response)) {
        if (event.id !== null) lastId = event.id;
        to.onEvent(event);
      }
    } catch (error) {
      if (signal.aborted || isAbort(error)) return;
      if (isFinal(error)) {
        to.onState?.("refused", error);
        return;
      }
    }
    if (signal.aborted) return;
    failures += 1;
    to.onState?.("lost");
    // At once where the network is back, or the page is looked at again.
    await pause(retryDelay(failures), signal, [
      [window, "online"],
      [document, "visibilitychange"],
    ]);
  }
}
