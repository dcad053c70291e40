/** Colours for code: the few languages that answers have most. Loaded with the first block of code. */
import hljs from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import c from "highlight.js/lib/languages/c";
import diff from "highlight.js/lib/languages/diff";
import go from "highlight.js/lib/languages/go";
import ini from "highlight.js/lib/languages/ini";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import python from "highlight.js/lib/languages/python";
import rust from "highlight.js/lib/languages/rust";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";

const LANGUAGES = { bash, c, diff, go, ini, javascript, json, python, rust, xml, yaml };

for (const [name, grammar] of Object.entries(LANGUAGES)) hljs.registerLanguage(name, grammar);
// The grammars of these would double the file; their relatives colour most of their words.
hljs.registerAliases(["cpp", "c++", "cc", "hpp", "java", "csharp", "cs"], { languageName: "c" });
hljs.registerAliases(["typescript", "ts", "tsx"], { languageName: "javascript" });

/** Return `code` as escaped HTML with classes of highlight.js; undefined: the language is not known. */
export function highlight(code: string, language: string): string | undefined {
  if (hljs.getLanguage(language) === undefined) return undefined;
  return hljs.highlight(code, { language, ignoreIllegals: true }).value;
}
