/// <reference lib="webworker" />
import { textOfPdf } from "./pdf-text";

declare const self: DedicatedWorkerGlobalScope;

self.addEventListener("message", async ({ data }: MessageEvent<ArrayBuffer>) => {
  self.postMessage(await textOfPdf(data));
});
