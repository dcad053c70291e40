import { models } from "./server";

const HUES = 8;

/** The CSS colour of a model, by its place in the configuration, the same in all drawings. */
export function hueOf(id: string): string {
  const place = models.value.findIndex((model) => model.id === id);
  return place < 0 ? "var(--line-strong)" : `var(--hue-${(place % HUES) + 1})`;
}
