/** The server answered a request with an error. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly retryAfterS: number | null = null,
  ) {
    super(message);
  }
}

/** No answer came: the server is not running, restarts, or the network is down. */
export class Unreachable extends Error {
  override readonly name = "Unreachable";
}

/** What a caught value says to a person. */
export function explain(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Whether a request was ended by its own AbortSignal. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** The error of an answer whose status is not 2xx, with the server's own sentence where there is one. */
export async function errorOf(response: Response): Promise<ApiError> {
  const after = Number(response.headers.get("retry-after"));
  const retryAfterS = Number.isFinite(after) && after > 0 ? after : null;
  const text = await response.text().catch(() => "");
  const { message, code } = parsed(text);
  const fallback = `The server answered ${response.status} ${response.statusText}`.trim();
  return new ApiError(response.status, code ?? `http_${response.status}`, message ?? fallback, retryAfterS);
}

function parsed(text: string): { message?: string; code?: string } {
  try {
    const body: unknown = JSON.parse(text);
    const error = isRecord(body) ? body.error : null;
    if (!isRecord(error)) return {};
    return {
      ...(typeof error.message === "string" && { message: error.message }),
      ...(typeof error.code === "string" && { code: error.code }),
    };
  } catch {
    // A proxy in front of the server answers in HTML; its status is all that is of use.
    return {};
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
