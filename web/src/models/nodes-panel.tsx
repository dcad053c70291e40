import type { ClusterNode } from "../api/types";
import { usePolled } from "../state/polling";
import { texts } from "../texts/en";
import { PoolBar } from "./memory";
import { NODE_LAMPS, nodeModelText, nodePool } from "./nodes";

const NODES_PERIOD_MS = 2_000;

/** The nodes of a cluster: their memory, and what their models do. */
export function NodesPanel() {
  const words = texts.nodes;
  const { value, error } = usePolled<{ data: ClusterNode[] }>("v1/nodes", NODES_PERIOD_MS);
  // A key for some models alone may not see the nodes.
  if (!value) return error ? null : <p class="panel empty">{texts.common.loading}</p>;
  if (value.data.length === 0) return <p class="panel empty">{words.none}</p>;
  return (
    <section class="panel memory" aria-label={words.title}>
      {value.data.map((node) => (
        <NodePanel key={node.id} node={node} />
      ))}
    </section>
  );
}

function NodePanel({ node }: { node: ClusterNode }) {
  const busy = Object.entries(node.models)
    .map(([name, model]) => [name, nodeModelText(model)] as const)
    .filter(([, text]) => text);
  const lamp = NODE_LAMPS[node.status];
  return (
    <div>
      <PoolBar
        pool={nodePool(node)}
        isPast={false}
        badge={
          <span class={`badge ${lamp}`} title={texts.nodes.hints[node.status]}>
            <span class={`dot ${lamp}`} />
            {texts.nodes.states[node.status]}
          </span>
        }
      />
      {busy.length > 0 && (
        <ul class="node-models small">
          {busy.map(([name, text]) => (
            <li key={name}>
              <span class="wrap-anywhere">{name}</span> <span class="muted">{text}</span>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
