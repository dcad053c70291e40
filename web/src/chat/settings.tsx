/** The settings of a conversation. */
import { useState } from "preact/hooks";
import { explain } from "../api/errors";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { toast } from "../ui/toast";
import { bodyOf } from "./request";
import type { Session } from "./session";
import { type ChatSettings, DEFAULT_SETTINGS, type ServerTools } from "./types";

const words = texts.chat.settings;

type NumberName =
  | "temperature"
  | "topP"
  | "topK"
  | "minP"
  | "repetitionPenalty"
  | "presencePenalty"
  | "seed"
  | "maxTokens";

const NUMBERS: readonly { name: NumberName; step: string; min: number; max?: number }[] = [
  { name: "temperature", step: "0.05", min: 0, max: 2 },
  { name: "topP", step: "0.01", min: 0, max: 1 },
  { name: "topK", step: "1", min: 0 },
  { name: "minP", step: "0.01", min: 0, max: 1 },
  { name: "repetitionPenalty", step: "0.01", min: 0.01, max: 2 },
  { name: "presencePenalty", step: "0.05", min: -2, max: 2 },
  { name: "seed", step: "1", min: 0 },
  { name: "maxTokens", step: "1", min: 1 },
];

const EFFORTS: readonly ChatSettings["reasoningEffort"][] = ["", "none", "low", "medium", "high"];
const SERVER_TOOLS: readonly ServerTools[] = ["configured", "ask", "off"];
const MAX_ALTERNATIVES = 10;

/** Fields of the settings; undefined: the model's default again. */
type Change = { [K in keyof ChatSettings]?: ChatSettings[K] | undefined };

interface FieldProps {
  settings: ChatSettings;
  change: (change: Change) => void;
}

function Area({
  title,
  hint,
  rows,
  value,
  onChange,
}: {
  title: string;
  hint?: string;
  rows: number;
  value: string;
  onChange: (value: string) => void;
}) {
  return (
    <label class="field">
      {title}
      <textarea
        class="input"
        rows={rows}
        value={value}
        placeholder={hint}
        onInput={(event) => onChange(event.currentTarget.value)}
      />
    </label>
  );
}

function Numbers({ settings, change }: FieldProps) {
  return (
    <div class="number-fields">
      {NUMBERS.map(({ name, ...bounds }) => (
        <label key={name} class="field">
          {words[name]}
          <input
            class="input"
            type="number"
            {...bounds}
            value={settings[name] ?? ""}
            placeholder={words.standard}
            onInput={({ currentTarget: { valueAsNumber } }) => {
              change({ [name]: Number.isNaN(valueAsNumber) ? undefined : valueAsNumber });
            }}
          />
        </label>
      ))}
    </div>
  );
}

function Choices({ settings, change }: FieldProps) {
  return (
    <div class="number-fields">
      <label class="field">
        {words.reasoning}
        <select
          class="input"
          value={settings.reasoningEffort}
          onChange={(event) =>
            change({ reasoningEffort: event.currentTarget.value as ChatSettings["reasoningEffort"] })
          }
        >
          {EFFORTS.map((effort) => (
            <option key={effort} value={effort}>
              {effort === "" ? words.standard : words.efforts[effort]}
            </option>
          ))}
        </select>
      </label>
      <label class="field">
        {words.serverTools}
        <select
          class="input"
          value={settings.serverTools}
          onChange={(event) => change({ serverTools: event.currentTarget.value as ServerTools })}
        >
          {SERVER_TOOLS.map((choice) => (
            <option key={choice} value={choice}>
              {words.serverToolChoices[choice]}
            </option>
          ))}
        </select>
      </label>
      <label class="field">
        {words.alternatives}
        <input
          class="input"
          type="number"
          min={0}
          max={MAX_ALTERNATIVES}
          value={settings.alternatives}
          onInput={({ currentTarget: { valueAsNumber } }) => {
            const count = Number.isNaN(valueAsNumber) ? 0 : Math.round(valueAsNumber);
            change({ alternatives: Math.min(MAX_ALTERNATIVES, Math.max(0, count)) });
          }}
        />
      </label>
    </div>
  );
}

export function SettingsDialog({ session, onClose }: { session: Session; onClose: () => void }) {
  const [settings, setSettings] = useState<ChatSettings>(session.shown.value.head.settings);
  const change = (values: Change) => {
    const all = Object.entries({ ...settings, ...values }).filter(([, value]) => value !== undefined);
    setSettings(Object.fromEntries(all) as unknown as ChatSettings);
  };

  function save() {
    try {
      bodyOf([], "", settings);
    } catch (error) {
      toast(explain(error), "bad");
      return;
    }
    session.configure({ settings });
    onClose();
  }

  return (
    <Dialog
      title={words.title}
      onClose={onClose}
      actions={
        <>
          <Button kind="quiet" onPress={() => setSettings(DEFAULT_SETTINGS)}>
            {words.reset}
          </Button>
          <Button kind="primary" onPress={save}>
            {texts.common.save}
          </Button>
        </>
      }
    >
      <div class="stack">
        <Area title={words.system} rows={3} value={settings.system} onChange={(system) => change({ system })} />
        <Numbers settings={settings} change={change} />
        <Choices settings={settings} change={change} />
        <Area
          title={words.stop}
          rows={2}
          value={settings.stop.join("\n")}
          onChange={(text) => change({ stop: text === "" ? [] : text.split("\n") })}
        />
        <Area
          title={words.schema}
          hint='{"type": "object", "properties": {"city": {"type": "string"}}}'
          rows={4}
          value={settings.schema}
          onChange={(schema) => change({ schema })}
        />
        <Area
          title={words.tools}
          hint='[{"type": "function", "function": {"name": "weather", "parameters": {}}}]'
          rows={4}
          value={settings.tools}
          onChange={(tools) => change({ tools })}
        />
      </div>
    </Dialog>
  );
}
