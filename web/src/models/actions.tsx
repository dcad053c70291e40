import { useState } from "preact/hooks";
import type { LoadPlan, Model } from "../api/types";
import { may } from "../state/caller";
import { go } from "../state/route";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { Icon } from "../ui/icon";
import { Menu, type MenuItem } from "../ui/menu";
import { load, prepare, readPlan, retune, unload } from "./commands";
import { planSentences } from "./plan";
import { PriorityDialog } from "./priority";

/** The buttons of a model, as far as the key may press them. */
export function ModelActions({ model }: { model: Model }) {
  const [plan, setPlan] = useState<LoadPlan | null>(null);
  const [isForcing, setForcing] = useState(false);
  const [isPrioritising, setPrioritising] = useState(false);
  const name = model.id;
  const words = texts.models;
  const isHere = model.state === "loaded" || model.state === "loading";

  async function loadOrAsk() {
    const found = await readPlan(model);
    if (found.outcome === "evicts" || found.outcome === "never" || found.outcome === "waits") setPlan(found);
    else await load(model);
  }

  // Other servers have the model, so there is nothing to load or unload here.
  const mayManage = may("admin") && !model.remote;
  const isOnNodes = model.nodes !== undefined;
  const admin: MenuItem[] = isHere
    ? [
        { title: words.park, hint: words.parkHint, onPress: () => unload(model, "park") },
        { title: words.drain, onPress: () => unload(model, "drain") },
        { title: words.suspend, hint: words.suspendHint, onPress: () => unload(model, "suspend") },
        {
          title: words.force,
          hint: words.forceHint,
          danger: true,
          onPress: () => (model.running > 0 ? setForcing(true) : unload(model, "force")),
        },
      ]
    : [
        ...(model.state === "parked" ? [{ title: words.unload, onPress: () => unload(model, "drain") }] : []),
        { title: words.prepare, hint: words.prepareHint, onPress: () => prepare(model) },
      ];
  const pinning: MenuItem[] = [
    model.pinned
      ? { title: words.unpin, onPress: () => retune(model, { pinned: false }) }
      : { title: words.pin, hint: words.pinHint, onPress: () => retune(model, { pinned: true }) },
  ];
  const items: MenuItem[] = [
    ...(mayManage ? [...admin, ...(isOnNodes ? [] : pinning)] : []),
    ...(may("admin") ? [{ title: words.setPriority, onPress: () => setPrioritising(true) }] : []),
    ...(may("read") && !isHere ? [{ title: words.showPlan, onPress: async () => setPlan(await readPlan(model)) }] : []),
  ];
  const isChat = model.kind === undefined || model.kind === "text" || model.kind === "multimodal";
  return (
    <div class="model-actions">
      {may("inference") && isChat && (
        <Button kind="quiet" onPress={() => go(`chat?model=${encodeURIComponent(name)}`)}>
          <Icon name="chat" /> {words.chat}
        </Button>
      )}
      {mayManage &&
        (isHere ? (
          <Button onPress={() => unload(model, "drain")}>{words.unload}</Button>
        ) : (
          <Button onPress={loadOrAsk} disabled={model.state === "freeing" || model.state === "sizing"}>
            {words.load}
          </Button>
        ))}
      {items.length > 0 && (
        <Menu label={words.actions(name)} items={items}>
          <Icon name="more" />
        </Menu>
      )}
      {plan && (
        <Dialog
          title={texts.plan.title(name)}
          onClose={() => setPlan(null)}
          actions={
            may("admin") &&
            plan.outcome !== "never" && (
              <Button
                kind="primary"
                onPress={() => {
                  setPlan(null);
                  return load(model);
                }}
              >
                {words.loadAnyway}
              </Button>
            )
          }
        >
          <Sentences plan={plan} />
        </Dialog>
      )}
      {isPrioritising && <PriorityDialog model={model} onClose={() => setPrioritising(false)} />}
      {isForcing && (
        <Dialog
          title={words.force}
          onClose={() => setForcing(false)}
          actions={
            <Button
              kind="danger"
              onPress={() => {
                setForcing(false);
                return unload(model, "force");
              }}
            >
              {words.force}
            </Button>
          }
        >
          {words.forceAsk(name, model.running)}
        </Dialog>
      )}
    </div>
  );
}

function Sentences({ plan }: { plan: LoadPlan }) {
  return (
    <ul class="stack">
      {planSentences(plan).map((sentence) => (
        <li key={sentence}>{sentence}</li>
      ))}
    </ul>
  );
}
