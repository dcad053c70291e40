/// <reference lib="webworker" />
import { textOfPdf } from "./pdf-text";

declare const self: DedicatedWorkerGlobalScope;

/** A file, and where its text goes: PDF.js sends messages of its own to who started the worker. */
export interface PdfTask {
  bytes: ArrayBuffer;
  port: MessagePort;
}

self.addEventListener("message", async ({ data: { bytes, port } }: MessageEvent<PdfTask>) => {
  port.postMessage(await textOfPdf(bytes));
});
