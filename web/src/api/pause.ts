/** Waits for a time, but no longer than until the signal, or an event of `wakes`, such as the network's return. */
export function pause(ms: number, signal: AbortSignal, wakes: readonly [EventTarget, string][] = []): Promise<void> {
  return new Promise((resolve) => {
    const ends: [EventTarget, string][] = [[signal, "abort"], ...wakes];
    const end = () => {
      clearTimeout(timer);
      for (const [target, event] of ends) target.removeEventListener(event, end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    for (const [target, event] of ends) target.addEventListener(event, end);
  });
}
