import { signal } from "@preact/signals";
import { follow } from "../api/follow";
import type { SseEvent } from "../api/sse";
import type { Activity, RequestState } from "../api/types";
import { whileVisible } from "./visible";

export const MAX_KEPT = 1_000;

const ENDED: ReadonlySet<RequestState> = new Set(["done", "failed", "cancelled"]);

/** The requests that the server has told of, the latest first. */
export const activities = signal<Activity[]>([]);

/** Whether the server has told of any yet; a server without such a list, or a key that may not read it, never does. */
export const hasActivities = signal(false);

export function isOver(activity: Activity): boolean {
  return ENDED.has(activity.state);
}

/** The list after an event of /v1/activity/events. Pure. */
export function applied(list: readonly Activity[], event: SseEvent): Activity[] {
  if (event.event === "snapshot") return latestFirst((JSON.parse(event.data) as { data: Activity[] }).data);
  if (event.event !== "request") return [...list];
  const changed = JSON.parse(event.data) as Activity;
  const place = list.findIndex((activity) => activity.id === changed.id);
  if (place >= 0) return list.with(place, changed);
  return latestFirst([changed, ...list]);
}

function latestFirst(list: Activity[]): Activity[] {
  return list.sort((a, b) => b.arrived_at - a.arrived_at).slice(0, MAX_KEPT);
}

/** Follows the requests while the page is visible. Returns what ends it. */
export function followActivities(): () => void {
  return whileVisible((signal) => follow(`v1/activity/events?limit=${MAX_KEPT}`, { onEvent: apply }, signal));
}

// Events that arrive together are applied together, because each new list is drawn.
let pending: SseEvent[] = [];

function apply(event: SseEvent): void {
  pending.push(event);
  if (pending.length > 1) return;
  queueMicrotask(() => {
    const events = pending;
    pending = [];
    hasActivities.value = true;
    activities.value = events.reduce<Activity[]>(applied, activities.value);
  });
}
