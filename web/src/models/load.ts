import type { Model, ModelState } from "../api/types";
import { texts } from "../texts/en";
import { duration, percent } from "../texts/format";

/** The colour of a state, as a class of badges and dots. */
export const LAMPS: Record<ModelState, string> = {
  unloaded: "",
  sizing: "busy",
  loading: "busy",
  loaded: "good",
  freeing: "busy",
  parked: "note",
  failed: "bad",
};

/** What a request to a model waits for until its answer begins, as far as that is known. Pure. */
export function waitText(model: Model | undefined): string {
  const words = texts.chat.waits;
  if (model === undefined || model.remote || model.state === "loaded") return words.firstToken;
  if (model.state === "loading" || model.state === "sizing") return words.load(loadText(model));
  return words.memory;
}

/** How far a load is, and how long it still takes, as far as that is known. Pure. */
export function loadText({ state, stage, progress, load_seconds: whole }: Model): string {
  if (state === "sizing") return stage && stage !== "sizing" ? stage : texts.models.states.sizing;
  if (progress === undefined) return stage ?? texts.models.states.loading;
  const left = whole === undefined ? null : texts.models.left(duration(whole * (1 - progress)));
  return [percent(progress), left].filter((text) => text !== null).join(" · ");
}
