import { texts } from "../texts/en";

export default function SettingsPage() {
  return (
    <div class="page">
      <h1>{texts.settings.title}</h1>
    </div>
  );
}
