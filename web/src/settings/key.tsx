import { useState } from "preact/hooks";
import { scopes } from "../state/caller";
import { connection } from "../state/connection";
import { key, masked } from "../state/key";
import { server } from "../state/server";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import { Panel } from "./panel";

const words = texts.settings.key;

/** The key of all requests: entered once, then shown masked, with what it allows. */
export function KeyPanel() {
  return (
    <Panel title={words.title}>
      {key.value === null ? <EnterKey /> : <StoredKey stored={key.value} />}
      {connection.value === "refused" && key.value !== null && <p class="callout bad">{words.wrong}</p>}
      <Allowed />
      <p class="muted small">{words.hint}</p>
    </Panel>
  );
}

function EnterKey() {
  const [text, setText] = useState("");
  return (
    <form
      class="row key-form"
      onSubmit={(event) => {
        event.preventDefault();
        if (text.trim()) key.value = text.trim();
      }}
    >
      <label class="field grow">
        {words.label}
        <input
          class="input mono"
          type="password"
          autocomplete="off"
          spellcheck={false}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
      </label>
      <Button kind="primary" type="submit" disabled={!text.trim()}>
        {words.use}
      </Button>
    </form>
  );
}

function StoredKey({ stored }: { stored: string }) {
  return (
    <div class="spread">
      <span>
        {server.value?.caller?.name && `${words.stored(server.value.caller.name)} `}
        <code>{masked(stored)}</code>
      </span>
      <Button
        kind="danger"
        onPress={() => {
          key.value = null;
        }}
      >
        {words.remove}
      </Button>
    </div>
  );
}

function Allowed() {
  const caller = server.value?.caller;
  if (!caller) return key.value === null ? <p class="small">{words.none}</p> : null;
  return (
    <div class="small">
      <span class="muted">{key.value === null ? words.allowsAll : words.allows}</span>
      <ul class="row">
        {[...scopes.value].map((scope) => (
          <li key={scope} class="badge">
            {words.scopes[scope] ?? scope}
          </li>
        ))}
      </ul>
      {caller.models && <p>{words.onlyModels(caller.models.join(", "))}</p>}
    </div>
  );
}
