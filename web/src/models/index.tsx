import { computed, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { History } from "../api/types";
import { activities, followActivities } from "../state/activity";
import { may } from "../state/caller";
import { usePolled } from "../state/polling";
import { models, server, serverError } from "../state/server";
import { texts } from "../texts/en";
import { MemoryPanel } from "./memory";
import "./models.css";
import { NodesPanel } from "./nodes-panel";
import { ReloadButton } from "./reload";
import { ModelRow } from "./row";
import { speeds } from "./speed";
import { TimelinePanel } from "./timeline-panel";

const modelSpeeds = computed(() => speeds(activities.value));

/** The time that the memory is shown at, in seconds since 1970; null: now. */
const shownAt = signal<number | null>(null);

const HISTORY_PERIOD_MS = 3_000;

export function ModelsPage() {
  useEffect(followActivities, []);
  const history = usePolled<History>("v1/models/history?seconds=3600", HISTORY_PERIOD_MS);
  const histories = history.value?.data ?? [];
  const all = models.value;
  if (!server.value) return <NoServer />;
  const isCluster = all.some((model) => model.nodes !== undefined);
  return (
    <div class="page">
      <div class="spread">
        <div class="row">
          <h1>{texts.models.title}</h1>
          <span class="muted">
            {texts.models.summary(all.filter(({ state }) => state === "loaded").length, all.length)}
          </span>
        </div>
        {may("admin") && <ReloadButton />}
      </div>
      {isCluster ? (
        <NodesPanel />
      ) : (
        server.value.memory && <MemoryPanel memory={server.value.memory} histories={histories} at={shownAt.value} />
      )}
      {all.length === 0 && <p class="panel empty">{texts.models.none}</p>}
      <ul class="panel models">
        {all.map((model) => (
          <ModelRow key={model.id} model={model} speed={modelSpeeds.value.get(model.id) ?? null} />
        ))}
      </ul>
      {history.value && !isCluster && <TimelinePanel history={history.value} at={shownAt} />}
    </div>
  );
}

function NoServer() {
  const error = serverError.value;
  return (
    <div class="page">
      <h1>{texts.models.title}</h1>
      <p class="empty">{error?.status === 403 ? texts.shell.noRead : (error?.message ?? texts.common.loading)}</p>
    </div>
  );
}
