/** Answers of the API, as docs/http-api.md describes them. Fields that are unknown are left out. */

export type Scope = "inference" | "read" | "admin";

export type ModelState = "unloaded" | "sizing" | "loading" | "loaded" | "freeing" | "parked" | "failed";

export interface DeviceMemory {
  budget_bytes: number;
  used_bytes: number;
  free_bytes: number;
  description?: string;
}

export interface YardMemory {
  budget_bytes: number;
  used_bytes: number;
  free_bytes: number;
  kept_bytes: number;
  devices?: Record<string, DeviceMemory>;
}

export interface RemoteAddress {
  status: "up" | "down";
  running: number;
  address?: string;
  error?: string;
  retry_in_seconds?: number;
}

/** A model on one node of a cluster. */
export interface NodeModel {
  status: "loaded" | "reloading" | "unloaded";
  running: number;
  waiting: number;
  resident_bytes: number;
  error?: string;
}

export interface ClusterNode {
  id: string;
  status: "up" | "draining" | "silent";
  memory: { budget_bytes: number; used_bytes: number; free_bytes: number };
  models: Record<string, NodeModel>;
}

export interface Model {
  id: string;
  aliases: string[];
  status: string;
  state: ModelState;
  running: number;
  waiting: number;
  resident_bytes: number;
  kind?: string;
  capabilities?: string[];
  context_length?: number;
  context_reason?: string;
  context_allocated?: number;
  input_modalities?: string[];
  quantization?: string;
  size_bytes?: number;
  predicted_bytes?: number;
  shared_bytes?: number;
  device_bytes?: Record<string, number>;
  placement?: string;
  stage?: string;
  progress?: number;
  load_seconds?: number;
  pinned?: boolean;
  /** Whether `pinned` or `priority` is not as configured. */
  retuned?: boolean;
  parked?: boolean;
  priority?: number;
  isolated?: boolean;
  restarts?: number;
  last_death?: string;
  warnings?: string[];
  default?: boolean;
  remote?: RemoteAddress[];
  /** On a cluster: the model on each node that has it, or had it. */
  nodes?: Record<string, NodeModel>;
  tools_available?: boolean;
  error?: string;
  idle_seconds?: number;
  unloads_after_seconds?: number;
  unloads_in_seconds?: number;
  source?: string;
}

export interface Caller {
  name: string | null;
  scopes: Scope[];
  models: string[] | null;
}

export interface Server {
  version: string;
  created: number | null;
  memory: YardMemory | null;
  models: Model[];
  caller?: Caller;
}

export interface Evicted {
  model_id: string;
  bytes: number;
  reason: string;
  device_bytes?: Record<string, number>;
}

export interface LoadPlan {
  model_id: string;
  node?: string;
  outcome: "loaded" | "loading" | "fits" | "evicts" | "waits" | "never";
  needed_bytes: number;
  free_bytes: number;
  budget_bytes: number;
  devices?: Record<string, { needed_bytes: number; free_bytes: number; budget_bytes: number }>;
  placement?: string;
  tokens_per_second?: number;
  evicts: Evicted[];
  load_seconds: number;
}

export type UnloadMode = "drain" | "suspend" | "force" | "park";

export interface ReloadedConfig {
  applied: boolean;
  added: string[];
  removed: string[];
  changed: Record<string, { keys: string[]; how: string; error: string | null }>;
  retuned: string[];
  memory: string[];
  mcp: string[];
  needs_restart: string[];
}

export interface Finding {
  name: string;
  label: string;
  value: string;
  verdict: "ok" | "note" | "problem";
  /** Empty for nothing. */
  advice: string;
  command: string;
}

export interface DoctorReport {
  as_of: number;
  usable: boolean;
  findings: Finding[];
}

export interface LogLine {
  id: string;
  time: string;
  level: "INFO" | "WARNING" | "ERROR" | string;
  logger: string;
  message: string;
}

export type RequestState = "waiting" | "loading" | "prefill" | "decode" | "suspended" | "done" | "failed" | "cancelled";

/** A request to a model. Times are seconds since 1970; null where it has not come so far. */
export interface Activity {
  id: string;
  request_id: string | null;
  model: string;
  key: string | null;
  dialect: string;
  path: string | null;
  kind: string;
  stream: boolean;
  state: RequestState;
  arrived_at: number;
  granted_at: number | null;
  first_token_at: number | null;
  ended_at: number | null;
  prompt_tokens: number;
  cached_tokens: number;
  answer_tokens: number;
  tokens_per_second: number | null;
  finish_reason: string | null;
  error: string | null;
}

export interface Phase {
  phase: "waiting" | "loading" | "prefill" | "decode" | "suspended";
  began_at: number;
  ended_at: number | null;
  text: string;
  models: string[];
}

export interface ActivityDetail extends Activity {
  error_message: string | null;
  phases: Phase[];
  /** Only where the server records texts. */
  prompt?: string | null;
  answer?: string | null;
}

export interface Interval {
  state: ModelState;
  began_at: number;
  ended_at: number | null;
  /** By pool: "host", or the name of a device. */
  bytes: Record<string, number>;
  cause: string | null;
  reason: string | null;
}

export interface ModelHistory {
  model_id: string;
  intervals: Interval[];
}

export interface History {
  as_of: number;
  data: ModelHistory[];
}
