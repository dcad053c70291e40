import { signal } from "@preact/signals";

/** "connecting" until the first answer; "refused": the key is missing or wrong; "lost": no answer. */
export type Connection = "connecting" | "online" | "lost" | "refused";

export const connection = signal<Connection>("connecting");

/** Times that the server was reached again after it was away, which views may watch to read their data again. */
export const recoveries = signal(0);

/** Records that an answer came. */
export function reached(status: number): void {
  // A proxy answers so while the server behind it is away.
  if (status === 502 || status === 504) {
    unreachable();
    return;
  }
  if (connection.value === "lost") recoveries.value += 1;
  connection.value = status === 401 ? "refused" : "online";
}

/** Records that no answer came. */
export function unreachable(): void {
  connection.value = "lost";
}
