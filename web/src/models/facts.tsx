import type { ComponentChildren } from "preact";
import type { Model, NodeModel, RemoteAddress } from "../api/types";
import { texts } from "../texts/en";
import { bytes, duration } from "../texts/format";
import { nodeModelText } from "./nodes";

function Servers({ servers }: { servers: RemoteAddress[] }) {
  const words = texts.models.facts;
  return (
    <>
      {servers.map(({ address, status, running, error }, number) => (
        <div key={address ?? number}>
          {address && <span class="mono">{address} </span>}
          {status === "up" ? words.serverUp(running) : words.serverDown(error)}
        </div>
      ))}
    </>
  );
}

function Nodes({ nodes }: { nodes: Record<string, NodeModel> }) {
  return (
    <>
      {Object.entries(nodes).map(([name, model]) => (
        <div key={name}>
          <span class="mono">{name}</span> {texts.nodes.modelStates[model.status]} {nodeModelText(model)}
        </div>
      ))}
    </>
  );
}

/** Everything else that is known of a model. */
export function ModelFacts({ model }: { model: Model }) {
  const words = texts.models.facts;
  const facts: [string, ComponentChildren][] = [
    [words.aliases, model.aliases.join(", ")],
    [words.kind, model.kind],
    [words.input, model.input_modalities?.join(", ")],
    [words.file, model.size_bytes && bytes(model.size_bytes)],
    [words.placement, [model.placement, model.isolated && texts.models.isolated].filter(Boolean).join(", ")],
    [words.servers, model.remote && <Servers servers={model.remote} />],
    [words.nodes, model.nodes && <Nodes nodes={model.nodes} />],
    [words.source, model.source && <span class="mono">{model.source}</span>],
    [words.contextReason, model.context_reason],
    [words.loadTime, model.load_seconds && duration(model.load_seconds)],
    [words.idleFor, model.idle_seconds !== undefined && duration(model.idle_seconds)],
    [words.unloadsAfter, model.unloads_after_seconds !== undefined && duration(model.unloads_after_seconds)],
    [words.restarts, model.restarts && words.times(model.restarts)],
    [words.lastDeath, model.last_death],
  ];
  return (
    <div class="model-facts">
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
      {model.warnings?.map((warning) => (
        <p key={warning} class="callout busy">
          {warning}
        </p>
      ))}
    </div>
  );
}
