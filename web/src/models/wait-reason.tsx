import type { LoadPlan, Model } from "../api/types";
import { usePolled } from "../state/polling";
import { texts } from "../texts/en";
import { planSentences } from "./plan";

const PERIOD_MS = 3_000;

/** Why the requests of a model wait that is not loaded, as the plan of its load has it. */
export function WaitReason({ model }: { model: Model }) {
  const { value } = usePolled<LoadPlan>("v1/models/plan", PERIOD_MS, { model_id: model.id });
  if (!value) return null;
  return (
    <p class="callout busy">
      <strong>{texts.models.waitsWhy}:</strong> {planSentences(value).join(" ")}
    </p>
  );
}
