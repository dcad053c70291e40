/** Where a person gives the results of the tools that the conversation itself defines. */
import { useState } from "preact/hooks";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import type { Session } from "./session";
import type { Call } from "./types";

export function Results({ session, calls }: { session: Session; calls: Call[] }) {
  const [given, setGiven] = useState<Record<string, string>>({});
  return (
    <form
      class="results"
      onSubmit={(event) => {
        event.preventDefault();
        const results = calls.map(({ id }) => ({ callId: id, text: given[id] ?? "" }));
        void session.ask({ text: "", results });
      }}
    >
      {calls.map(({ id, name }) => (
        <label key={id} class="field">
          {texts.chat.resultOf(name)}
          <textarea
            class="input"
            rows={2}
            value={given[id] ?? ""}
            onInput={(event) => setGiven({ ...given, [id]: event.currentTarget.value })}
          />
        </label>
      ))}
      <Button kind="primary" type="submit">
        {texts.chat.sendResults}
      </Button>
    </form>
  );
}
