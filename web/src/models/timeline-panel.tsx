import type { Signal } from "@preact/signals";
import { useState } from "preact/hooks";
import type { History } from "../api/types";
import { hueOf } from "../state/hues";
import { texts } from "../texts/en";
import { clock } from "../texts/format";
import { Button } from "../ui/button";
import { changeText } from "./change-text";
import { LAMPS } from "./load";
import { changes, marks, type Track, tracks } from "./timeline";

const WINDOWS = ["300", "900", "3600"] as const;
const MAX_CHANGES = 8;

/** What was in memory when, with a slider that shows the memory as it was. */
export function TimelinePanel({ history, at }: { history: History; at: Signal<number | null> }) {
  const [seconds, setSeconds] = useState<(typeof WINDOWS)[number]>("900");
  const to = history.as_of;
  const from = to - Number(seconds);
  const shown = at.value === null ? null : Math.max(from, Math.min(to, at.value));
  const backToNow = () => {
    at.value = null;
  };
  const rows = tracks(history.data, from, to);
  return (
    <section class="panel timeline" aria-label={texts.timeline.title}>
      <div class="spread">
        <h2>{texts.timeline.title}</h2>
        <fieldset class="row choices" aria-label={texts.timeline.window}>
          {shown !== null && (
            <Button kind="quiet" onPress={backToNow}>
              {texts.timeline.backToNow}
            </Button>
          )}
          {WINDOWS.map((name) => (
            <Button key={name} kind="quiet" pressed={name === seconds} onPress={() => setSeconds(name)}>
              {texts.timeline.windows[name]}
            </Button>
          ))}
        </fieldset>
      </div>
      <div class="tracks">
        {rows.length === 0 && <p class="empty">{texts.timeline.nothing}</p>}
        {rows.map((track) => (
          <TrackRow key={track.model} track={track} />
        ))}
        <div class="axis small muted" aria-hidden="true">
          {marks(from, to).map((mark) => (
            <span key={mark.at} style={{ left: `${mark.share * 100}%` }}>
              {clock(mark.at).slice(0, 5)}
            </span>
          ))}
        </div>
        <div class="scrub">
          {shown !== null && <div class="cursor" style={{ left: `${((shown - from) / (to - from)) * 100}%` }} />}
          <input
            type="range"
            aria-label={texts.timeline.scrub}
            aria-valuetext={shown === null ? texts.timeline.now : clock(shown)}
            min={0}
            max={Number(seconds)}
            step={1}
            value={shown === null ? Number(seconds) : shown - from}
            onInput={(event) => {
              const offset = Number(event.currentTarget.value);
              at.value = offset >= Number(seconds) ? null : from + offset;
            }}
          />
        </div>
      </div>
      <Changes history={history} from={from} to={shown ?? to} />
    </section>
  );
}

function TrackRow({ track }: { track: Track }) {
  return (
    <div class="track" style={{ "--hue": hueOf(track.model) }}>
      <div class="track-name small wrap-anywhere">{track.model}</div>
      <div class="track-line">
        {track.blocks.map(({ interval, from, width }) => (
          <div
            key={interval.began_at}
            class={`block ${interval.state}`}
            title={changeText(interval, clock(interval.began_at))}
            style={{ left: `${from * 100}%`, width: `max(2px, ${width * 100}%)` }}
          />
        ))}
      </div>
    </div>
  );
}

function Changes({ history, from, to }: { history: History; from: number; to: number }) {
  const found = changes(history.data, from, to, MAX_CHANGES);
  return (
    <div>
      <h3 class="small muted">{texts.timeline.changes}</h3>
      {found.length === 0 && <p class="small muted">{texts.timeline.noChanges}</p>}
      <ul class="changes small">
        {found.map(({ model, at, interval }) => (
          <li key={`${model} ${at}`}>
            <span class="muted nowrap">{clock(at)}</span>
            <span class={`dot ${LAMPS[interval.state]}`} />
            <span class="wrap-anywhere">
              <strong>{model}</strong> {changeText(interval)}
            </span>
          </li>
        ))}
      </ul>
    </div>
  );
}
