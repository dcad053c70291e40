import { reached, unreachable } from "../state/connection";
import { key } from "../state/key";
import { texts } from "../texts/en";
import { address } from "./address";
import { errorOf, isAbort, Unreachable } from "./errors";

export interface CallOptions {
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Sent as JSON, unless it is FormData. A body implies POST. */
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/**
 * Sends a request and returns the answer once its status is known to be good; the body may still stream.
 *
 * @throws ApiError for an error status, Unreachable without an answer, AbortError after the signal.
 */
export async function open(path: string, options: CallOptions = {}): Promise<Response> {
  const { body, signal } = options;
  const isForm = body instanceof FormData;
  const headers = new Headers(options.headers);
  if (key.value) headers.set("authorization", `Bearer ${key.value}`);
  if (body !== undefined && !isForm) headers.set("content-type", "application/json");
  let response: Response;
  try {
    response = await fetch(address(path), {
      method: options.method ?? (body === undefined ? "GET" : "POST"),
      headers,
      body: body === undefined ? null : isForm ? body : JSON.stringify(body),
      signal: signal ?? null,
      cache: "no-store",
      credentials: "same-origin",
    });
  } catch (error) {
    if (isAbort(error)) throw error;
    unreachable();
    throw new Unreachable(texts.errors.unreachable);
  }
  reached(response.status);
  if (!response.ok) throw await errorOf(response);
  return response;
}

/** Sends a request and returns the JSON of its answer. Errors are those of `open`. */
export async function call<T>(path: string, options: CallOptions = {}): Promise<T> {
  const response = await open(path, options);
  return (await response.json()) as T;
}
