import { useState } from "preact/hooks";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import { Panel } from "./panel";

interface Package {
  name: string;
  version: string;
  license: string;
  text: string;
}

/** Packages whose code is part of the page. The list is written when the page is built. */
export function LicencesPanel() {
  const [packages, setPackages] = useState<Package[] | null>(null);

  async function read() {
    const response = await fetch("licences.json");
    if (!response.ok) throw new Error(texts.settings.licences.none);
    setPackages((await response.json()) as Package[]);
  }

  return (
    <Panel title={texts.settings.licences.title}>
      <p class="muted small">{texts.settings.licences.hint}</p>
      {packages === null && (
        <div>
          <Button onPress={read}>{texts.settings.licences.show}</Button>
        </div>
      )}
      {packages?.map(({ name, version, license, text }) => (
        <details key={name} class="small">
          <summary>
            {name} {version} <span class="muted">{license}</span>
          </summary>
          <pre class="licence">{text}</pre>
        </details>
      ))}
    </Panel>
  );
}
