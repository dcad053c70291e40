/** Reads PDF files in a worker, which is ended where a file takes too long: the page stays usable meanwhile. */
import type { PdfText } from "./pdf-text";
import type { PdfTask } from "./pdf-worker";

const MAX_MS = 60_000;

/** Return the text of a PDF file, or why there is none; "slow": reading it took too long. */
export async function readPdf(file: Blob): Promise<PdfText | { failure: "slow" }> {
  const bytes = await file.arrayBuffer();
  const worker = new Worker(new URL("./pdf-worker.ts", import.meta.url), { type: "module" });
  const { port1: answers, port2: port } = new MessageChannel();
  const task: PdfTask = { bytes, port };
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    return await new Promise((resolve, reject) => {
      answers.onmessage = ({ data }: MessageEvent<PdfText>) => resolve(data);
      worker.addEventListener("error", ({ message }) => reject(new Error(message)));
      timer = setTimeout(() => resolve({ failure: "slow" }), MAX_MS);
      worker.postMessage(task, [bytes, port]);
    });
  } finally {
    clearTimeout(timer);
    answers.close();
    worker.terminate();
  }
}
