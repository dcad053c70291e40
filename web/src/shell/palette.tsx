import { signal } from "@preact/signals";
import { useEffect, useId, useState } from "preact/hooks";
import { explain } from "../api/errors";
import { scopes } from "../state/caller";
import { models } from "../state/server";
import { texts } from "../texts/en";
import { Dialog } from "../ui/dialog";
import { toast } from "../ui/toast";
import { type Command, commands, found } from "./commands";

/** Whether the palette is shown. */
export const isPaletteOpen = signal(false);

const MAX_SHOWN = 12;

/** The palette, where it is open: a field that searches for pages, models and actions. */
export function Palette() {
  return isPaletteOpen.value ? <OpenPalette /> : null;
}

function OpenPalette() {
  const [text, setText] = useState("");
  const [place, setPlace] = useState(0);
  const id = useId();
  const shown = found(commands(models.value, scopes.value), text).slice(0, MAX_SHOWN);
  const close = () => {
    isPaletteOpen.value = false;
  };

  useEffect(() => {
    document.getElementById(`${id}-${place}`)?.scrollIntoView({ block: "nearest" });
  }, [id, place]);

  async function run(command: Command | undefined) {
    if (!command) return;
    close();
    try {
      await command.run();
    } catch (error) {
      toast(explain(error), "bad");
    }
  }

  function keys(event: KeyboardEvent) {
    const to = { ArrowDown: place + 1, ArrowUp: place - 1 }[event.key];
    if (to !== undefined && shown.length > 0) {
      event.preventDefault();
      setPlace((to + shown.length) % shown.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      void run(shown[place]);
    }
  }

  return (
    <Dialog title={texts.palette.title} onClose={close}>
      <input
        class="input palette-field"
        type="text"
        role="combobox"
        aria-label={texts.palette.title}
        aria-expanded="true"
        aria-controls={`${id}-list`}
        aria-activedescendant={shown.length > 0 ? `${id}-${place}` : undefined}
        placeholder={texts.palette.placeholder}
        autocomplete="off"
        value={text}
        ref={(field) => field?.setAttribute("autofocus", "")}
        onInput={(event) => {
          setText(event.currentTarget.value);
          setPlace(0);
        }}
        onKeyDown={keys}
      />
      <div id={`${id}-list`} class="palette-list" role="listbox" aria-label={texts.palette.title}>
        {shown.map((command, at) => (
          // biome-ignore lint/a11y/useKeyWithClickEvents: the field above has the keyboard.
          <div
            key={command.title}
            id={`${id}-${at}`}
            role="option"
            aria-selected={at === place}
            tabIndex={-1}
            onClick={() => run(command)}
            onPointerMove={() => setPlace(at)}
          >
            <span class="wrap-anywhere">{command.title}</span>
            <span class="muted small">{command.group}</span>
          </div>
        ))}
      </div>
      {shown.length === 0 && <p class="empty">{texts.palette.none}</p>}
    </Dialog>
  );
}
