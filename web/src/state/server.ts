import { computed, signal } from "@preact/signals";
import { call } from "../api/client";
import { ApiError } from "../api/errors";
import type { Model, Server } from "../api/types";

/** The last answer of /v1/server; null before the first one, or where the key may not read it. */
export const server = signal<Server | null>(null);

/** When `server` was read, in milliseconds as of Date.now(). */
export const serverReadAt = signal(0);

/** The error of the last reading, where the server answered with one. */
export const serverError = signal<ApiError | null>(null);

export const models = computed<Model[]>(() => server.value?.models ?? []);

/** Requests that change what models do, and are not answered yet: the state is read more often meanwhile. */
export const changing = signal(0);

export async function whileChanging<T>(change: () => Promise<T>): Promise<T> {
  changing.value += 1;
  try {
    return await change();
  } finally {
    changing.value -= 1;
  }
}

let reading: Promise<void> | null = null;

/** Reads /v1/server; calls at the same time share one request. */
export function refreshServer(): Promise<void> {
  reading ??= read().finally(() => {
    reading = null;
  });
  return reading;
}

async function read(): Promise<void> {
  try {
    const answer = await call<Server>("v1/server");
    serverReadAt.value = Date.now();
    server.value = answer;
    serverError.value = null;
  } catch (error) {
    // Without an answer the last known state stays, marked as old by `connection`.
    if (error instanceof ApiError) {
      serverError.value = error;
      if (error.status === 401 || error.status === 403) server.value = null;
    }
  }
}
