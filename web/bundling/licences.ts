import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Plugin } from "vite";

interface Package {
  name: string;
  version: string;
  license: string;
  text: string;
}

/** Folder of the package that a module belongs to, which has a version where parts of it have none; null for the page's own modules. */
function packageFolder(module: string): string | null {
  const path = module.replace(/^\0/, "").split("?")[0] ?? "";
  if (!path.includes("/node_modules/")) return null;
  for (let folder = dirname(path); folder.includes("/node_modules/"); folder = dirname(folder)) {
    const manifest = join(folder, "package.json");
    if (existsSync(manifest) && JSON.parse(readFileSync(manifest, "utf8")).version) return folder;
  }
  return null;
}

function describe(folder: string): Package {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  const text = file ? readFileSync(join(folder, file), "utf8").trim() : "";
  return { name, version, license: typeof license === "string" ? license : "see text", text };
}

/** Code that another package contains without a licence of its own. */
const CONTAINED: readonly (Package & { within: string })[] = [
  {
    within: "unpdf",
    name: "pdfjs-dist",
    version: "within unpdf",
    license: "Apache-2.0",
    text: "PDF.js. Copyright Mozilla and individual contributors. Licensed under the Apache License, Version 2.0, whose text stands with dompurify.",
  },
];

/** Folders of the packages of all bundles: workers are bundled apart, before the page. */
const folders = new Set<string>();

function note(bundle: Record<string, { type: string; moduleIds?: string[] }>): void {
  for (const { moduleIds = [] } of Object.values(bundle)) {
    for (const module of moduleIds) {
      const folder = packageFolder(module);
      if (folder) folders.add(folder);
    }
  }
}

/** Notes the packages of a worker for `licences`. */
export function licencesOfWorker(): Plugin {
  return { name: "licences-of-worker", apply: "build", generateBundle: (_options, bundle) => note(bundle) };
}

/** Writes licences.json: the packages that ended up in the bundles, with the texts of their licences. */
export function licences(): Plugin {
  return {
    name: "licences",
    apply: "build",
    generateBundle(_options, bundle) {
      note(bundle);
      const own = [...folders].map(describe);
      const contained = CONTAINED.filter(({ within }) => own.some(({ name }) => name === within));
      const packages = [...own, ...contained.map(({ within: _, ...each }) => each)].sort((a, b) =>
        a.name.localeCompare(b.name),
      );
      this.emitFile({ type: "asset", fileName: "licences.json", source: JSON.stringify(packages) });
    },
  };
}
