/// <reference lib="webworker" />
export {};

/**
 * Keeps the page's own static files, so that it opens at once, and opens at all while the server restarts.
 *
 * Files below assets/ have their content in their names and never change. Everything else of the page comes from the
 * server while it answers. Requests outside of the page's folder, which is all of the API, are not touched.
 */
declare const self: ServiceWorkerGlobalScope;
/** Files of the page, which the build writes here. */
declare const PAGE_FILES: readonly string[];

const CACHE = "modelyard-page";
const MAX_ENTRIES = 120;

self.addEventListener("install", (event) => {
  event.waitUntil(keepAll());
  void self.skipWaiting();
});
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || !request.url.startsWith(self.registration.scope)) return;
  const isHashed = request.url.startsWith(`${self.registration.scope}assets/`);
  event.respondWith(isHashed ? cached(request) : fresh(request));
});

/** Keeps what the first visit has read before this worker was there, and the parts of the page that it has not opened. */
async function keepAll(): Promise<void> {
  const cache = await caches.open(CACHE);
  await cache.addAll(["./", ...PAGE_FILES]);
}

async function cached(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  return (await cache.match(request)) ?? keep(cache, request, await fetch(request));
}

async function fresh(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  try {
    return await keep(cache, request, await fetch(request));
  } catch (error) {
    const old = await cache.match(request, { ignoreSearch: true });
    if (old) return old;
    throw error;
  }
}

async function keep(cache: Cache, request: Request, response: Response): Promise<Response> {
  if (response.ok && !response.redirected) {
    await cache.put(request, response.clone());
    const entries = await cache.keys();
    for (const entry of entries.slice(0, Math.max(0, entries.length - MAX_ENTRIES))) await cache.delete(entry);
  }
  return response;
}
