import { call } from "../api/client";
import type { LoadPlan, Model, UnloadMode } from "../api/types";
import { refreshServer, whileChanging } from "../state/server";
import { texts } from "../texts/en";
import { toast } from "../ui/toast";

export function readPlan(model: Model): Promise<LoadPlan> {
  return call<LoadPlan>("v1/models/plan", { body: { model_id: model.id } });
}

/** Loads a model, and says so when it serves. */
export async function load(model: Model): Promise<void> {
  await whileChanging(() => call("v1/models/reload", { body: { model_id: model.id } }));
  toast(texts.models.loaded(model.id), "good");
}

export async function unload(model: Model, mode: UnloadMode): Promise<void> {
  await whileChanging(() => call("v1/models/unload", { body: { model_id: model.id, mode } }));
  const said = mode === "park" ? texts.models.parked : texts.models.unloaded;
  toast(said(model.id), "good");
}

/** Pins a model or changes its priority, until the configuration is read again or the server restarts. */
export async function retune(model: Model, change: { pinned?: boolean; priority?: number }): Promise<void> {
  await call("v1/models/retune", { body: { model_id: model.id, ...change } });
  await refreshServer();
  toast(texts.models.wasRetuned(model.id), "good");
}

export async function prepare(model: Model): Promise<void> {
  await whileChanging(() => call("v1/models/prepare", { body: { model_id: model.id } }));
  toast(texts.models.prepared(model.id), "good");
}
