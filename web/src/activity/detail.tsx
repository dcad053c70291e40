import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { call } from "../api/client";
import { explain, isAbort } from "../api/errors";
import type { ActivityDetail, Phase } from "../api/types";
import { isOver } from "../state/activity";
import { texts } from "../texts/en";
import { clock, duration } from "../texts/format";
import { Dialog } from "../ui/dialog";

const PERIOD_MS = 1_000;

/** One request, with what it waited for step by step; it is read again until the request is over. */
export function RequestDetail({ id, onClose }: { id: string; onClose: () => void }) {
  const [detail, setDetail] = useState<ActivityDetail | null>(null);
  const [error, setError] = useState<unknown>(null);
  const isRunning = detail !== null && !isOver(detail);
  useEffect(() => {
    const ending = new AbortController();
    const read = () =>
      call<ActivityDetail>(`v1/activity/${encodeURIComponent(id)}`, { signal: ending.signal }).then(
        setDetail,
        (reason: unknown) => !isAbort(reason) && setError(reason),
      );
    void read();
    const timer = isRunning ? setInterval(read, PERIOD_MS) : 0;
    return () => {
      clearInterval(timer);
      ending.abort();
    };
  }, [id, isRunning]);
  return (
    <Dialog wide title={detail ? texts.activity.detail(detail.model) : texts.common.loading} onClose={onClose}>
      {error !== null && !detail && <p class="callout bad">{explain(error)}</p>}
      {detail && <Contents detail={detail} />}
    </Dialog>
  );
}

function Contents({ detail }: { detail: ActivityDetail }) {
  const words = texts.activity.facts;
  const end = detail.ended_at ?? Date.now() / 1_000;
  const facts: [string, ComponentChildren][] = [
    [words.arrived, clock(detail.arrived_at)],
    [words.took, duration(end - detail.arrived_at)],
    [words.tokens, texts.activity.tokens(detail.prompt_tokens, detail.cached_tokens, detail.answer_tokens)],
    [words.finish, detail.finish_reason ?? detail.error],
    [words.key, detail.key],
    [words.path, detail.path && <span class="mono">{detail.path}</span>],
    [words.stream, detail.stream ? texts.activity.yes : texts.activity.no],
    [words.id, <span class="mono">{detail.request_id ?? detail.id}</span>],
  ];
  return (
    <div class="stack">
      {detail.error_message && <p class="callout bad">{detail.error_message}</p>}
      <div>
        <h3>{texts.activity.steps}</h3>
        <Phases phases={detail.phases} from={detail.arrived_at} to={end} />
      </div>
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
      {detail.prompt && <Recorded title={texts.activity.prompt} text={detail.prompt} />}
      {detail.answer && <Recorded title={texts.activity.answer} text={detail.answer} />}
    </div>
  );
}

function Phases({ phases, from, to }: { phases: readonly Phase[]; from: number; to: number }) {
  const span = Math.max(to - from, 0.001);
  return (
    <ol class="phases small">
      {phases.map(({ phase, began_at, ended_at, text }) => {
        const end = ended_at ?? to;
        return (
          <li key={began_at}>
            <div class="phase-head">
              <strong>{texts.activity.phases[phase] ?? phase}</strong>
              <span class="muted nowrap">{duration(end - began_at)}</span>
            </div>
            <div class="phase-line" aria-hidden="true">
              <div
                class={phase}
                style={{
                  left: `${((began_at - from) / span) * 100}%`,
                  width: `max(2px, ${((end - began_at) / span) * 100}%)`,
                }}
              />
            </div>
            <p class="muted wrap-anywhere">{text}</p>
          </li>
        );
      })}
    </ol>
  );
}

function Recorded({ title, text }: { title: string; text: string }) {
  return (
    <div>
      <h3>{title}</h3>
      <pre class="recorded">{text}</pre>
    </div>
  );
}
