import type { ComponentChildren } from "preact";
import type { ModelHistory, YardMemory } from "../api/types";
import { hueOf } from "../state/hues";
import { models } from "../state/server";
import { texts } from "../texts/en";
import { bytes, clock } from "../texts/format";
import { HOST, type Pool, pools, poolsAt, type Segment } from "./pools";

export interface MemoryPanelProps {
  memory: YardMemory;
  histories: readonly ModelHistory[];
  /** Seconds since 1970; null: now. */
  at: number | null;
}

export function MemoryPanel({ memory, histories, at }: MemoryPanelProps) {
  const today = pools(memory, models.value);
  const shown = at === null ? today : poolsAt(today, histories, at);
  return (
    <section class="panel memory" aria-label={at === null ? texts.memory.title : texts.memory.at(clock(at))}>
      {shown.map((pool) => (
        <PoolBar key={pool.name} pool={pool} isPast={at !== null} />
      ))}
    </section>
  );
}

export interface PoolBarProps {
  pool: Pool;
  isPast: boolean;
  /** Beside the name. */
  badge?: ComponentChildren;
}

export function PoolBar({ pool, isPast, badge }: PoolBarProps) {
  const { budgetBytes, usedBytes, segments } = pool;
  const scale = Math.max(budgetBytes, usedBytes, 1);
  // The history has weights that two models share in both of them, so its sum proves nothing.
  const isOver = !isPast && usedBytes > budgetBytes;
  const used = isPast ? texts.memory.atMost : texts.memory.used;
  return (
    <div class="pool">
      <div class="spread small">
        <h2 class="pool-name">
          {pool.name === HOST ? texts.memory.host : pool.name}
          {pool.description && <span class="muted"> {pool.description}</span>} {badge}
        </h2>
        <span class={isOver ? "over" : "muted"}>
          {budgetBytes === 0 ? texts.memory.gone : used(bytes(usedBytes), bytes(budgetBytes))}
          {isOver && budgetBytes > 0 && ` – ${texts.memory.over}`}
        </span>
      </div>
      <div class={`bar ${isPast ? "past" : ""}`} aria-hidden="true">
        {segments.map((segment) => (
          <div
            key={segment.kind + segment.model}
            class={`segment ${segment.kind}`}
            title={`${segmentName(segment)}: ${bytes(segment.bytes)}`}
            style={{ width: `${(segment.bytes / scale) * 100}%`, "--hue": hue(segment) }}
          />
        ))}
        {isOver && <div class="budget-line" style={{ left: `${(budgetBytes / scale) * 100}%` }} />}
      </div>
      <ul class="legend small">
        {segments.map((segment) => (
          <li key={segment.kind + segment.model}>
            <span class={`swatch ${segment.kind}`} style={{ "--hue": hue(segment) }} />
            <span class="wrap-anywhere">{segmentName(segment)}</span>{" "}
            <span class="muted nowrap">{bytes(segment.bytes)}</span>
          </li>
        ))}
        {!isPast && (
          <li>
            <span class="swatch free" />
            {texts.memory.free} <span class="muted">{bytes(Math.max(0, budgetBytes - usedBytes))}</span>
          </li>
        )}
      </ul>
    </div>
  );
}

function segmentName({ kind, model }: Segment): string {
  return kind === "model" && model !== null ? model : kind === "kept" ? texts.memory.kept : texts.memory.shared;
}

function hue({ kind, model }: Segment): string {
  return kind === "model" && model !== null ? hueOf(model) : "var(--line-strong)";
}
