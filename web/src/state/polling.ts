import { useEffect, useState } from "preact/hooks";
import { type CallOptions, call } from "../api/client";
import { isAbort } from "../api/errors";
import { pause } from "../api/pause";
import { whileVisible } from "./visible";

export interface Polled<T> {
  value: T | null;
  error: unknown;
}

/** An answer that is read again and again while its component is shown. The last one stays where a reading fails. */
export function usePolled<T>(path: string, periodMs: number, body?: Record<string, string>): Polled<T> {
  const [state, setState] = useState<Polled<T>>({ value: null, error: null });
  const sent = body && JSON.stringify(body);
  useEffect(() => {
    async function read(options: CallOptions & { signal: AbortSignal }) {
      while (!options.signal.aborted) {
        try {
          const value = await call<T>(path, options);
          setState({ value, error: null });
        } catch (error) {
          if (isAbort(error)) return;
          setState((before) => ({ value: before.value, error }));
        }
        await pause(periodMs, options.signal);
      }
    }
    return whileVisible((signal) => read(sent === undefined ? { signal } : { signal, body: JSON.parse(sent) }));
  }, [path, periodMs, sent]);
  return state;
}
