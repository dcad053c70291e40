import { type Signal, signal } from "@preact/signals";

const PREFIX = "modelyard.";

/** A signal whose value outlives the page, in localStorage; null removes it. */
export function stored(name: string): Signal<string | null> {
  const value = signal<string | null>(read(name));
  value.subscribe((text) => write(name, text));
  return value;
}

// Browsers that block storage throw on any access; the page then works, and keeps nothing.
function read(name: string): string | null {
  try {
    return localStorage.getItem(PREFIX + name);
  } catch {
    return null;
  }
}

function write(name: string, text: string | null): void {
  try {
    if (text === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, text);
  } catch {
    // See above.
  }
}
