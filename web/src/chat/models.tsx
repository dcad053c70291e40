/** Which models answer: one, or several side by side. */
import { useEffect, useRef, useState } from "preact/hooks";
import { texts } from "../texts/en";
import { Icon } from "../ui/icon";
import type { Session } from "./session";
import { chatModels, defaultModel } from "./state";
import { MAX_MODELS } from "./types";

export function ModelPicker({ session }: { session: Session }) {
  const [isOpen, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const { models } = session.shown.value.head;
  const chosen = models.length > 0 ? models : [defaultModel()];
  const known = chatModels.value.map((model) => ({ name: model.id, state: model.state }));
  // A conversation may name a model that the server no longer has.
  const gone = chosen.filter((name) => !known.some((model) => model.name === name));
  const listed = [...known, ...gone.map((name) => ({ name, state: undefined }))];

  useEffect(() => {
    if (!isOpen) return;
    root.current?.querySelector<HTMLElement>("input")?.focus();
    const outside = (event: Event) => {
      if (event.target instanceof Node && !root.current?.contains(event.target)) setOpen(false);
    };
    document.addEventListener("pointerdown", outside);
    return () => document.removeEventListener("pointerdown", outside);
  }, [isOpen]);

  function toggle(name: string) {
    const next = chosen.includes(name) ? chosen.filter((each) => each !== name) : [...chosen, name];
    if (next.length > 0) session.configure({ models: next });
  }

  function only(name: string) {
    session.configure({ models: [name] });
    setOpen(false);
    button.current?.focus();
  }

  return (
    <div ref={root} class="picker">
      <button
        ref={button}
        class="button"
        type="button"
        aria-expanded={isOpen}
        aria-label={`${texts.chat.models}: ${chosen.join(", ")}`}
        onClick={() => setOpen(!isOpen)}
      >
        <span class="picker-names">{chosen.join(" + ")}</span>
        <Icon name="down" size={14} />
      </button>
      {isOpen && (
        <fieldset
          class="picker-list"
          onKeyDown={(event) => {
            if (event.key !== "Escape") return;
            setOpen(false);
            button.current?.focus();
          }}
        >
          <legend class="small muted">{texts.chat.modelsHint(MAX_MODELS)}</legend>
          {listed.map(({ name, state }) => (
            <div key={name} class="picker-row">
              <label>
                <input
                  type="checkbox"
                  checked={chosen.includes(name)}
                  disabled={!chosen.includes(name) && chosen.length >= MAX_MODELS}
                  onChange={() => toggle(name)}
                />
                <span class="wrap-anywhere">{name}</span>
              </label>
              <span class="muted small">{state ?? texts.chat.notThere}</span>
              <button class="button quiet" type="button" onClick={() => only(name)}>
                {texts.chat.only}
              </button>
            </div>
          ))}
        </fieldset>
      )}
    </div>
  );
}
