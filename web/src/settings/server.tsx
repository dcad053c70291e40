import type { ComponentChildren } from "preact";
import { address } from "../api/address";
import { server, serverError } from "../state/server";
import { texts } from "../texts/en";
import { bytes, day, duration } from "../texts/format";
import { Panel } from "./panel";

/** What the server is. */
export function ServerPanel() {
  const words = texts.settings.server;
  const now = server.value;
  if (!now) {
    return (
      <Panel title={words.title}>
        <p class="muted">{serverError.value?.message ?? texts.common.loading}</p>
      </Panel>
    );
  }
  const devices = Object.entries(now.memory?.devices ?? {}).map(
    ([name, device]) => `${[name, device.description].filter(Boolean).join(": ")} (${bytes(device.budget_bytes)})`,
  );
  const facts: [string, ComponentChildren][] = [
    [words.version, now.version],
    [words.address, <span class="mono">{address("")}</span>],
    [
      words.started,
      now.created && `${day(now.created)} – ${words.up(duration(Math.max(0, Date.now() / 1_000 - now.created)))}`,
    ],
    [words.memory, now.memory && bytes(now.memory.budget_bytes)],
    [words.devices, now.memory && (devices.join(", ") || words.noDevices)],
    [words.models, String(now.models.length)],
  ];
  return (
    <Panel title={words.title}>
      <dl class="facts">
        {facts
          .filter(([, value]) => value)
          .map(([title, value]) => (
            <div key={title}>
              <dt>{title}</dt>
              <dd class="wrap-anywhere">{value}</dd>
            </div>
          ))}
      </dl>
    </Panel>
  );
}
