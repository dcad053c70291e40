/** Calls of tools within an answer. */
import { call as request } from "../api/client";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import type { Call } from "./types";

/** How a call stands, in words, and the kind of its badge. `isLive`: its answer streams. */
function standing({ phase, isError, result }: Call, isLive: boolean): { words: string; kind: string } {
  const words = texts.chat.phases;
  if (phase === "denied" || phase === "asked") return { words: words[phase], kind: "" };
  if (isError) return { words: words.error, kind: "bad" };
  if (phase === "complete" || result !== undefined) return { words: words.complete, kind: "good" };
  return isLive ? { words: words[phase], kind: "busy" } : { words: words.cut, kind: "" };
}

function decide(call: Call, body: Record<string, unknown>): Promise<unknown> {
  return request(`v1/agent/approvals/${encodeURIComponent(call.approvalId ?? "")}`, { body });
}

/** JSON with line breaks, or the text as it is. */
function readable(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function Approval({ call }: { call: Call }) {
  return (
    <div class="approval">
      <p>{texts.chat.approval.question}</p>
      <div class="row">
        <Button kind="primary" onPress={() => decide(call, { decision: "approve" })}>
          {texts.chat.approval.approve}
        </Button>
        <Button onPress={() => decide(call, { decision: "approve", remember_for_session: true })}>
          {texts.chat.approval.approveAll}
        </Button>
        <Button kind="danger" onPress={() => decide(call, { decision: "deny" })}>
          {texts.chat.approval.deny}
        </Button>
      </div>
    </div>
  );
}

/** One call. `isLive`: its answer streams, so that an approval still has an effect. */
export function CallCard({ call, isLive }: { call: Call; isLive: boolean }) {
  const { name, server, phase, progress, result, durationMs } = call;
  const { words, kind } = standing(call, isLive);
  const isWaiting = phase === "waiting" && isLive;
  const seconds = durationMs === undefined || phase === "denied" ? "" : ` · ${(durationMs / 1000).toFixed(1)} s`;
  return (
    <section class="call" aria-label={`${texts.chat.call}: ${name}`}>
      <details open={isWaiting || phase === "asked"}>
        <summary>
          <span class="mono wrap-anywhere">{name}</span>
          {server && <span class="muted small wrap-anywhere">{server}</span>}
          <span class={`badge ${kind}`}>
            {words}
            {seconds}
          </span>
        </summary>
        {progress && phase === "running" && <p class="muted small">{progress}</p>}
        <h3>{texts.chat.arguments}</h3>
        <pre>{readable(call.arguments)}</pre>
        {result !== undefined && <h3>{texts.chat.result}</h3>}
        {result !== undefined && <pre>{readable(result)}</pre>}
      </details>
      {isWaiting && <Approval call={call} />}
    </section>
  );
}
