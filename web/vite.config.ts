import { defineConfig } from "vitest/config";
import { browserEntities } from "./bundling/entities.ts";
import { mathmlOnly } from "./bundling/katex.ts";
import { licences, licencesOfWorker } from "./bundling/licences.ts";
import { pageFiles } from "./bundling/page-files.ts";

const server = process.env.MODELYARD_URL ?? "http://127.0.0.1:1234";

export default defineConfig({
  // Relative addresses: the page works behind any path prefix.
  base: "./",
  plugins: [browserEntities(), mathmlOnly(), licences(), pageFiles()],
  build: {
    outDir: "../src/modelyard/api/ui/static",
    emptyOutDir: true,
    target: "es2022",
    // The policy of the page forbids inline code and data: fonts.
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    rollupOptions: {
      input: { index: "index.html", sw: "src/sw.ts" },
      output: {
        // The service worker must keep its name, because browsers compare it by address.
        entryFileNames: (chunk) => (chunk.name === "sw" ? "sw.js" : "assets/[name]-[hash].js"),
      },
    },
  },
  worker: { format: "es", plugins: () => [licencesOfWorker()] },
  server: {
    proxy: Object.fromEntries(
      ["/v1", "/metrics", "/health"].map((path) => [path, { target: server, headers: { origin: server } }]),
    ),
  },
  test: { include: ["src/**/*.test.{ts,tsx}"] },
});
