import { signal } from "@preact/signals";
import { texts } from "../texts/en";
import { Icon } from "./icon";

export type ToastKind = "note" | "good" | "bad";

interface Shown {
  id: number;
  text: string;
  kind: ToastKind;
}

const SHOWN_MS = 6_000;
const MAX_SHOWN = 4;

const toasts = signal<Shown[]>([]);
let lastId = 0;

/** Shows a sentence in a corner for a while; one that reports a failure stays until it is closed. */
export function toast(text: string, kind: ToastKind = "note"): void {
  lastId += 1;
  const id = lastId;
  toasts.value = [...toasts.value.filter((shown) => shown.text !== text), { id, text, kind }].slice(-MAX_SHOWN);
  if (kind !== "bad") setTimeout(() => close(id), SHOWN_MS);
}

function close(id: number): void {
  toasts.value = toasts.value.filter((shown) => shown.id !== id);
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map(({ id, text, kind }) => (
        <div key={id} class={`toast ${kind}`}>
          <span>{text}</span>
          <button class="button quiet icon" type="button" aria-label={texts.common.close} onClick={() => close(id)}>
            <Icon name="close" />
          </button>
        </div>
      ))}
    </div>
  );
}
