import { texts } from "../texts/en";
import { Panel } from "./panel";

const words = texts.settings.keyboard;

const KEYS: readonly [string[], string][] = [
  [["Ctrl", "K"], words.palette],
  [["Alt", "1 … 4"], words.pages],
];

export function KeyboardPanel() {
  return (
    <Panel title={words.title}>
      <ul class="keys small">
        {KEYS.map(([keys, meaning]) => (
          <li key={meaning}>
            <span class="nowrap">
              {keys.map((name) => (
                <kbd key={name}>{name}</kbd>
              ))}
            </span>
            {meaning}
          </li>
        ))}
      </ul>
    </Panel>
  );
}
