import type { Plugin } from "vite";

/** Of chunks that few visits need, by the beginning of their names. */
const LEFT_OUT = "assets/pdf";

/** Writes the names of the page's files into its service worker, which keeps them: another build is another worker. */
export function pageFiles(): Plugin {
  return {
    name: "page-files",
    apply: "build",
    generateBundle(_options, bundle) {
      const worker = bundle["sw.js"];
      if (worker?.type !== "chunk" || !worker.code.includes("PAGE_FILES")) this.error("sw.js has no PAGE_FILES.");
      const names = Object.keys(bundle).filter((name) => name.startsWith("assets/") && !name.startsWith(LEFT_OUT));
      worker.code = worker.code.replace("PAGE_FILES", JSON.stringify(names));
    },
  };
}
