import { displayName, models } from "../state/server";
import { texts } from "../texts/en";

export function ModelsPage() {
  return (
    <div class="page">
      <h1>{texts.models.title}</h1>
      <ul>
        {models.value.map((model) => (
          <li key={model.id}>{displayName(model)}</li>
        ))}
      </ul>
    </div>
  );
}
