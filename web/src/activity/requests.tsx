import { signal } from "@preact/signals";
import type { Activity, RequestState } from "../api/types";
import { activities, hasActivities } from "../state/activity";
import { go } from "../state/route";
import { models } from "../state/server";
import { texts } from "../texts/en";
import { clock, count, duration, rate } from "../texts/format";
import { type Column, Table } from "../ui/table";
import { RequestDetail } from "./detail";
import { type Filters, filtered, type Group, NO_FILTERS } from "./filter";

const filters = signal<Filters>(NO_FILTERS);

const MAX_ROWS = 200;

const LAMPS: Record<RequestState, string> = {
  waiting: "busy",
  loading: "busy",
  prefill: "note",
  decode: "good",
  suspended: "busy",
  done: "",
  failed: "bad",
  cancelled: "",
};

const words = texts.activity.columns;

const COLUMNS: readonly Column<Activity>[] = [
  { key: "time", title: words.time, cell: ({ arrived_at }) => <span class="nowrap">{clock(arrived_at)}</span> },
  { key: "model", title: words.model, cell: ({ model }) => <span class="model-cell wrap-anywhere">{model}</span> },
  { key: "key", title: words.key, cell: ({ key }) => key ?? <span class="muted">{texts.activity.noKey}</span> },
  { key: "dialect", title: words.dialect, cell: ({ dialect }) => dialect },
  {
    key: "state",
    title: words.state,
    cell: ({ state }) => <span class={`badge ${LAMPS[state]}`}>{texts.activity.states[state] ?? state}</span>,
  },
  {
    key: "prompt",
    title: words.prompt,
    number: true,
    cell: ({ prompt_tokens, cached_tokens }) => (
      <span class="nowrap">
        {count(prompt_tokens)}
        {cached_tokens > 0 && (
          <span class="muted">
            {" "}
            ({count(cached_tokens)} {words.cached})
          </span>
        )}
      </span>
    ),
  },
  { key: "answer", title: words.answer, number: true, cell: ({ answer_tokens }) => count(answer_tokens) },
  {
    key: "first",
    title: words.first,
    number: true,
    cell: ({ arrived_at, first_token_at }) => (
      <span class="nowrap">{first_token_at === null ? "" : duration(first_token_at - arrived_at)}</span>
    ),
  },
  {
    key: "speed",
    title: words.speed,
    number: true,
    cell: ({ tokens_per_second }) => (tokens_per_second === null ? "" : rate(tokens_per_second)),
  },
  {
    key: "took",
    title: words.took,
    number: true,
    cell: ({ arrived_at, ended_at }) => (
      <span class="nowrap">{ended_at === null ? "" : duration(ended_at - arrived_at)}</span>
    ),
  },
  {
    key: "finish",
    title: words.finish,
    cell: ({ finish_reason, error }) =>
      error ? <span class="failed-with">{error}</span> : <span class="muted">{finish_reason ?? ""}</span>,
  },
];

export function RequestsView({ openId }: { openId: string | null }) {
  const found = filtered(activities.value, filters.value);
  const empty = !hasActivities.value
    ? texts.activity.unavailable
    : activities.value.length === 0
      ? texts.activity.none
      : texts.activity.noneFound;
  return (
    <>
      <FilterBar />
      <div class="panel">
        <Table
          caption={texts.activity.tabs.requests}
          columns={COLUMNS}
          rows={found.slice(0, MAX_ROWS)}
          rowKey={({ id }) => id}
          onOpen={({ id }) => go(`activity/requests/${encodeURIComponent(id)}`)}
          empty={empty}
        />
      </div>
      {openId && <RequestDetail key={openId} id={openId} onClose={() => go("activity/requests")} />}
    </>
  );
}

function FilterBar() {
  const set = (change: Partial<Filters>) => {
    filters.value = { ...filters.value, ...change };
  };
  const { group, model, text } = filters.value;
  const groups = Object.entries(texts.activity.groups) as [Group, string][];
  return (
    <div class="row filters">
      <label class="field">
        {texts.activity.filters.state}
        <select class="input" value={group} onChange={(event) => set({ group: event.currentTarget.value as Group })}>
          {groups.map(([name, title]) => (
            <option key={name} value={name}>
              {title}
            </option>
          ))}
        </select>
      </label>
      <label class="field">
        {texts.activity.filters.model}
        <select class="input" value={model} onChange={(event) => set({ model: event.currentTarget.value })}>
          <option value="">{texts.common.all}</option>
          {models.value.map(({ id }) => (
            <option key={id} value={id}>
              {id}
            </option>
          ))}
        </select>
      </label>
      <label class="field grow">
        {texts.activity.filters.text}
        <input
          class="input"
          type="search"
          placeholder={texts.activity.filters.placeholder}
          value={text}
          onInput={(event) => set({ text: event.currentTarget.value })}
        />
      </label>
    </div>
  );
}
