import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { DoctorReport, Finding } from "../api/types";
import { may } from "../state/caller";
import { texts } from "../texts/en";
import { clock } from "../texts/format";
import { Button } from "../ui/button";
import { Panel } from "./panel";

const words = texts.settings.doctor;
const LAMPS: Record<Finding["verdict"], string> = { ok: "good", note: "busy", problem: "bad" };
const ORDER: readonly Finding["verdict"][] = ["problem", "note", "ok"];

/** What the server finds about its machine, for keys that may change it. */
export function DoctorPanel() {
  const [report, setReport] = useState<DoctorReport | null>(null);
  if (!may("admin")) return null;
  const findings = report?.findings.toSorted((a, b) => ORDER.indexOf(a.verdict) - ORDER.indexOf(b.verdict)) ?? [];
  return (
    <Panel title={words.title}>
      <p class="muted small">{words.hint}</p>
      <div class="row">
        <Button onPress={async () => setReport(await call<DoctorReport>("v1/doctor"))}>
          {report ? words.again : words.examine}
        </Button>
        {report && (
          <span class="small" role="status">
            {report.usable ? words.usable : words.unusable} <span class="muted">{words.asOf(clock(report.as_of))}</span>
          </span>
        )}
      </div>
      {findings.length > 0 && (
        <ul class="findings small" aria-label={words.title}>
          {findings.map((finding, index) => (
            <FindingLine key={`${finding.name} ${index}`} finding={finding} />
          ))}
        </ul>
      )}
    </Panel>
  );
}

function FindingLine({ finding: { label, value, verdict, advice, command } }: { finding: Finding }) {
  return (
    <li>
      <span class={`badge ${LAMPS[verdict]}`}>{words.verdicts[verdict]}</span>
      <div class="wrap-anywhere">
        <strong>{label}</strong> {value}
        {advice && <p class="muted">{advice}</p>}
        {command && <pre class="licence">{command}</pre>}
      </div>
    </li>
  );
}
