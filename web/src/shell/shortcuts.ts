import { go, PAGES } from "../state/route";
import { isPaletteOpen } from "./palette";

/** Listens for the keys that work everywhere: Ctrl+K opens the palette, Alt+1 to Alt+4 the pages. */
export function listenForShortcuts(): void {
  window.addEventListener("keydown", (event) => {
    const { key, code, ctrlKey, metaKey, altKey, shiftKey } = event;
    if ((ctrlKey || metaKey) && !altKey && !shiftKey && key.toLowerCase() === "k") {
      event.preventDefault();
      isPaletteOpen.value = !isPaletteOpen.value;
    }
    // By the place of the key: with Alt, some keyboards write another character.
    const page = altKey && !ctrlKey && !metaKey ? PAGES[Number(code.replace("Digit", "")) - 1] : undefined;
    if (page) {
      event.preventDefault();
      go(page);
    }
  });
}
