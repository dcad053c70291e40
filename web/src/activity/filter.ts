import type { Activity, RequestState } from "../api/types";

export type Group = "all" | "open" | "done" | "failed";

export interface Filters {
  group: Group;
  /** An id; empty for all. */
  model: string;
  text: string;
}

export const NO_FILTERS: Filters = { group: "all", model: "", text: "" };

const GROUPS: Record<RequestState, Group> = {
  waiting: "open",
  loading: "open",
  prefill: "open",
  decode: "open",
  suspended: "open",
  done: "done",
  failed: "failed",
  cancelled: "failed",
};

/** The requests that match all filters. Pure. */
export function filtered(list: readonly Activity[], { group, model, text }: Filters): Activity[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return list.filter((activity) => {
    if (group !== "all" && GROUPS[activity.state] !== group) return false;
    if (model && activity.model !== model) return false;
    const facts = searched(activity);
    return words.every((word) => facts.includes(word));
  });
}

function searched({ id, request_id, key, dialect, path, error, finish_reason }: Activity): string {
  return [id, request_id, key, dialect, path, error, finish_reason].filter(Boolean).join(" ").toLowerCase();
}
