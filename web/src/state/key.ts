import { stored } from "./stored";

/** The API key of all requests, or null where none was entered. */
export const key = stored("key");

/** A key as it may be shown: its first letters, and how long it is. */
export function masked(secret: string): string {
  const shown = secret.length > 12 ? secret.slice(0, 5) : "";
  return `${shown}${"•".repeat(Math.min(12, secret.length - shown.length))}`;
}
