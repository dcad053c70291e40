import { chooseTheme, type Theme, theme } from "../state/theme";
import { texts } from "../texts/en";
import { Panel } from "./panel";

const THEMES: readonly Theme[] = ["system", "light", "dark"];

export function ThemePanel() {
  return (
    <Panel title={texts.settings.theme.title}>
      <fieldset class="row choices" aria-label={texts.settings.theme.title}>
        {THEMES.map((name) => (
          <label key={name} class="choice">
            <input type="radio" name="theme" checked={theme.value === name} onChange={() => chooseTheme(name)} />
            {texts.settings.theme[name]}
          </label>
        ))}
      </fieldset>
    </Panel>
  );
}
