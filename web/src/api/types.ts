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
  parked?: boolean;
  priority?: number;
  isolated?: boolean;
  restarts?: number;
  last_death?: string;
  warnings?: string[];
  default?: boolean;
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
  changed: Record<string, { keys?: string[] } | string[]>;
  retuned: string[];
  memory: string[];
  mcp: string[];
  needs_restart: string[];
}

export interface LogLine {
  id: string;
  time: string;
  level: "INFO" | "WARNING" | "ERROR" | string;
  logger: string;
  message: string;
}
