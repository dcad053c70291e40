import { fileURLToPath } from "node:url";
import type { Plugin } from "vite";

const MODULE = fileURLToPath(new URL("../src/markdown/entities.ts", import.meta.url));

/** Takes the names of HTML's characters from the browser, in place of the package `entities`, whose table has 30 kB. */
export function browserEntities(): Plugin {
  return {
    name: "browser-entities",
    apply: "build",
    enforce: "pre",
    resolveId: (id) => (id === "entities" ? MODULE : null),
  };
}
