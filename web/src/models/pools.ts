import type { Interval, Model, ModelHistory, YardMemory } from "../api/types";

export const HOST = "host";

/** Part of a pool's bar. `model` is null for memory that belongs to no single model. */
export interface Segment {
  kind: "model" | "shared" | "kept";
  model: string | null;
  bytes: number;
}

export interface Pool {
  name: string;
  description: string | null;
  budgetBytes: number;
  usedBytes: number;
  segments: Segment[];
}

/** The memory pools, with what each model takes of them. Pure. */
export function pools(memory: YardMemory, models: readonly Model[]): Pool[] {
  const host = hostSegments(memory, models);
  const found: Pool[] = [
    { name: HOST, description: null, budgetBytes: memory.budget_bytes, usedBytes: memory.used_bytes, segments: host },
  ];
  for (const [name, device] of Object.entries(memory.devices ?? {})) {
    const segments = models
      .map((model): Segment => ({ kind: "model", model: model.id, bytes: model.device_bytes?.[name] ?? 0 }))
      .filter(({ bytes }) => bytes > 0);
    found.push({
      name,
      description: device.description ?? null,
      budgetBytes: device.budget_bytes,
      usedBytes: device.used_bytes,
      segments,
    });
  }
  return found;
}

function hostSegments(memory: YardMemory, models: readonly Model[]): Segment[] {
  const segments = models
    .map((model): Segment => ({ kind: "model", model: model.id, bytes: ownHostBytes(model) }))
    .filter(({ bytes }) => bytes > 0);
  const own = segments.reduce((sum, { bytes }) => sum + bytes, 0);
  // Shared weights are in each model's bytes, and once in the sum of all, so they are a segment of their own.
  const shared = models.some((model) => model.shared_bytes) ? memory.used_bytes - memory.kept_bytes - own : 0;
  if (shared > 0) segments.push({ kind: "shared", model: null, bytes: shared });
  if (memory.kept_bytes > 0) segments.push({ kind: "kept", model: null, bytes: memory.kept_bytes });
  return segments;
}

function ownHostBytes(model: Model): number {
  const devices = Object.values(model.device_bytes ?? {}).reduce((sum, bytes) => sum + bytes, 0);
  return model.resident_bytes - devices - (model.shared_bytes ?? 0);
}

/** The interval of a model at a time, or null before its first one. */
export function intervalAt(history: ModelHistory, at: number): Interval | null {
  return history.intervals.find(({ began_at, ended_at }) => began_at <= at && (ended_at ?? Infinity) > at) ?? null;
}

/** The pools as they were at a time, with the budgets of today. Pure. */
export function poolsAt(today: readonly Pool[], histories: readonly ModelHistory[], at: number): Pool[] {
  return today.map((pool) => {
    const segments: Segment[] = [];
    for (const history of histories) {
      const bytes = intervalAt(history, at)?.bytes[pool.name] ?? 0;
      if (bytes > 0) segments.push({ kind: "model", model: history.model_id, bytes });
    }
    return { ...pool, segments, usedBytes: segments.reduce((sum, { bytes }) => sum + bytes, 0) };
  });
}
