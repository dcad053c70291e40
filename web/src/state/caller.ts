import { computed } from "@preact/signals";
import type { Scope } from "../api/types";
import { server } from "./server";

/** What the key may do. Nothing is offered before the server has answered. */
export const scopes = computed<ReadonlySet<Scope>>(() => new Set(server.value?.caller?.scopes ?? []));

/** Whether the key has a scope. Components that call this in render follow its changes. */
export function may(scope: Scope): boolean {
  return scopes.value.has(scope);
}
