import { computed } from "@preact/signals";
import { stored } from "./stored";

export type Theme = "system" | "light" | "dark";

const chosen = stored("theme");

export const theme = computed<Theme>(() =>
  chosen.value === "light" || chosen.value === "dark" ? chosen.value : "system",
);

export function chooseTheme(next: Theme): void {
  chosen.value = next === "system" ? null : next;
}

/** Keeps the attribute that the style sheets look at in step with the choice. */
export function applyTheme(): void {
  theme.subscribe((name) => {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
  });
}
