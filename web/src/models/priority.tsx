import { useState } from "preact/hooks";
import { explain } from "../api/errors";
import type { Model } from "../api/types";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { toast } from "../ui/toast";
import { retune } from "./commands";

const MAX_PRIORITY = 100;

/** Asks for another priority of a model. */
export function PriorityDialog({ model, onClose }: { model: Model; onClose: () => void }) {
  const [priority, setPriority] = useState(model.priority ?? 0);
  const words = texts.models;
  const isValid = Number.isInteger(priority) && Math.abs(priority) <= MAX_PRIORITY;

  async function save() {
    try {
      await retune(model, { priority });
      onClose();
    } catch (error) {
      toast(explain(error), "bad");
    }
  }

  return (
    <Dialog title={words.priorityOf(model.id)} onClose={onClose}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void save();
        }}
      >
        <label class="field">
          {words.priorityField}
          <input
            class="input"
            type="number"
            min={-MAX_PRIORITY}
            max={MAX_PRIORITY}
            step={1}
            value={priority}
            onInput={({ currentTarget: { valueAsNumber } }) => setPriority(valueAsNumber)}
          />
        </label>
        <p class="muted small">{words.priorityHint}</p>
        <div>
          <Button kind="primary" type="submit" disabled={!isValid}>
            {texts.common.save}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
