import { texts } from "../texts/en";
import { DoctorPanel } from "./doctor";
import { KeyPanel } from "./key";
import { KeyboardPanel } from "./keyboard";
import { LicencesPanel } from "./licences";
import { ServerPanel } from "./server";
import "./settings.css";
import { ThemePanel } from "./theme";

export default function SettingsPage() {
  return (
    <div class="page settings">
      <h1>{texts.settings.title}</h1>
      <KeyPanel />
      <ThemePanel />
      <ServerPanel />
      <DoctorPanel />
      <KeyboardPanel />
      <LicencesPanel />
    </div>
  );
}
