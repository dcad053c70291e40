import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { Model } from "../api/types";
import { hueOf } from "../state/hues";
import { texts } from "../texts/en";
import { bytes, count, duration, rate } from "../texts/format";
import { Icon } from "../ui/icon";
import { Meter } from "../ui/meter";
import { ModelActions } from "./actions";
import { ModelFacts } from "./facts";
import { LAMPS, loadText } from "./load";
import type { Speed } from "./speed";
import { WaitReason } from "./wait-reason";

export function ModelRow({ model, speed }: { model: Model; speed: Speed | null }) {
  const [isOpen, setOpen] = useState(false);
  const name = model.id;
  const isLoading = model.state === "loading" || model.state === "sizing";
  return (
    <li class="model-row">
      <div class="model-line">
        <div class="model-name">
          <button
            class="link model-toggle"
            type="button"
            aria-expanded={isOpen}
            title={texts.common.details}
            onClick={() => setOpen(!isOpen)}
          >
            <span class="swatch" style={{ "--hue": hueOf(model.id) }} />
            <strong class="wrap-anywhere">{name}</strong>
            <span class={`turn ${isOpen ? "open" : ""}`}>
              <Icon name="right" size={14} />
            </span>
          </button>
          <div class="row small">
            <span class={`badge ${LAMPS[model.state]}`}>
              <span class={`dot ${LAMPS[model.state]}`} />
              {texts.models.states[model.state] ?? model.state}
            </span>
            {model.default && <span class="badge">{texts.models.isDefault}</span>}
            {model.remote && <span class="badge">{texts.models.isRemote}</span>}
            {model.pinned && <span class="badge">{texts.models.pinned}</span>}
            {!!model.priority && <span class="badge">{texts.models.priority(model.priority)}</span>}
            {model.retuned && (
              <span class="badge note" title={texts.models.retunedHint}>
                {texts.models.retuned}
              </span>
            )}
            {model.quantization && <span class="muted">{model.quantization}</span>}
          </div>
        </div>
        <Measure title={texts.models.memory}>
          {model.resident_bytes > 0 ? (
            bytes(model.resident_bytes)
          ) : (
            <span class="muted">
              {model.predicted_bytes ? texts.models.predicted(bytes(model.predicted_bytes)) : "–"}
            </span>
          )}
        </Measure>
        <Measure title={texts.models.context}>{contextText(model)}</Measure>
        <Measure title={texts.models.speed}>
          {speed ? (
            <span class={speed.isNow ? "live" : "muted"} title={speed.isNow ? undefined : texts.models.lastSpeed}>
              {rate(speed.tokensPerSecond)}
            </span>
          ) : (
            <span class="muted">–</span>
          )}
        </Measure>
        <Measure title={texts.models.queue}>
          <Queue model={model} />
        </Measure>
        <ModelActions model={model} />
      </div>
      {isLoading && (
        <div class="model-load">
          <Meter value={model.state === "loading" ? (model.progress ?? null) : null} label={name} kind="busy" />
          <span class="small muted">{loadText(model)}</span>
        </div>
      )}
      {model.error && <p class="callout bad">{model.error}</p>}
      {model.waiting > 0 && model.state !== "loaded" && !isLoading && <WaitReason model={model} />}
      {isOpen && <ModelFacts model={model} />}
    </li>
  );
}

function Measure({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <div class="measure">
      <div class="measure-title">{title}</div>
      <div>{children}</div>
    </div>
  );
}

function contextText({ context_length: most, context_allocated: now }: Model) {
  if (!most) return <span class="muted">–</span>;
  return now && now < most ? texts.models.contextNow(count(now), count(most)) : count(most);
}

function Queue({ model }: { model: Model }) {
  const { running, waiting, unloads_in_seconds: unloadsIn } = model;
  if (running === 0 && waiting === 0) {
    const hint = model.state === "loaded" && unloadsIn !== undefined;
    return <span class="muted">{hint ? texts.models.unloadsIn(duration(unloadsIn)) : texts.models.idle}</span>;
  }
  return (
    <>
      {running > 0 && <span class="live">{texts.models.running(running)}</span>}
      {running > 0 && waiting > 0 && " · "}
      {waiting > 0 && <span class="waits">{texts.models.waiting(waiting)}</span>}
    </>
  );
}
