// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { formula } from "./formulas";
import { highlight } from "./highlighter";
import { IncrementalMarkdown } from "./incremental";
import { createMarkdown, sanitised } from "./renderer";

const words = { copy: "Copy", image: "Image" };
const markdown = createMarkdown({ highlight, formula }, words);

function page(text: string): HTMLElement {
  const root = document.createElement("div");
  root.innerHTML = new IncrementalMarkdown(markdown).render(text, true).join("");
  return root;
}

describe("hostile Markdown does nothing", () => {
  const attacks = [
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "<svg onload=alert(1)>",
    "<iframe src=javascript:alert(1)></iframe>",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](java\tscript:alert(1))",
    "[a](&#106;avascript:alert(1))",
    "[a](javascript&colon;alert(1))",
    "[a](vbscript:msgbox(1))",
    "[a](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[a](data:image/svg+xml,<svg onload=alert(1)>)",
    "[a](data:image/png;base64,AA==)",
    "[a](/v1/models/unload)",
    "[a](#/settings)",
    "![a](javascript:alert(1))",
    "![a](data:image/svg+xml;base64,PHN2Zy8+)",
    '![a](https://evil.example/x.png "onerror=alert(1)")',
    "![a](//evil.example/x.png)",
    '[a](https://a.example "\\" onmouseover=alert(1) \\"")',
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)\n\n[x]",
    "```<img src=x onerror=alert(1)>\n</code></pre><script>alert(1)</script>\n```",
    "```html\n</code></pre><script>alert(1)</script><style>*{display:none}</style>\n```",
    "`<img src=x onerror=alert(1)>`",
    "| <img src=x onerror=alert(1)> |\n| - |\n| <script>alert(1)</script> |",
    "$\\href{javascript:alert(1)}{x}$",
    "$\\url{javascript:alert(1)}$",
    "$\\htmlStyle{background:url(//evil.example)}{x}$",
    "$\\includegraphics{https://evil.example/x.png}$",
    "$\\text{<img src=x onerror=alert(1)>}$",
    "$$\\def\\x{\\x\\x}\\x$$",
    '<math><mtext><table><mglyph><style><img src=x onerror="alert(1)">',
    '<a href="https://a.example" style="position:fixed;inset:0">x</a>',
    "<form action=/v1/models/unload><button>x</button></form>",
    "<base href=https://evil.example>",
    "<meta http-equiv=refresh content=0;url=https://evil.example>",
    "\u0000<script>alert(1)</script>",
  ];

  it.each(attacks)("%s", (text) => {
    for (const until of [text.length, Math.ceil(text.length / 2)]) {
      const root = page(text.slice(0, until));
      expect(root.querySelectorAll("script,style,iframe,form,base,meta,svg,object,embed,input,link")).toHaveLength(0);
      for (const element of root.querySelectorAll("*")) {
        for (const { name, value } of element.attributes) {
          expect(name).not.toMatch(/^on|^style$|^id$|^name$/);
          if (name === "href") expect(value).toMatch(/^(https?:|mailto:)/);
          if (name === "src") expect(value).toMatch(/^data:image\/(png|jpeg|gif|webp|avif);/);
        }
      }
    }
  });

  it("and elements that the renderer does not make are taken out of HTML", () => {
    expect(sanitised('<p style="color:red" onclick="x()">a<script>b</script><input></p>')).toBe("<p>a</p>");
  });
});

describe("links and images", () => {
  it("open in a new tab, without a reference to this page", () => {
    const link = page("[a](https://a.example/b?c=1&d=2)").querySelector("a");
    expect(link?.getAttribute("href")).toBe("https://a.example/b?c=1&d=2");
    expect(link?.getAttribute("target")).toBe("_blank");
    expect(link?.getAttribute("rel")).toContain("noopener");
  });

  it("of other servers are links", () => {
    const root = page("![a cat](https://a.example/cat.png)");
    expect(root.querySelector("img")).toBeNull();
    expect(root.querySelector("a")?.textContent).toBe("Image: a cat");
  });

  it("within the text are shown", () => {
    const image = page("![dot](data:image/png;base64,iVBORw0KGgo=)").querySelector("img");
    expect(image?.getAttribute("src")).toMatch(/^data:image\/png/);
    expect(image?.getAttribute("alt")).toBe("dot");
  });
});

describe("code", () => {
  it("has its language, a button that copies it, and colours", () => {
    const root = page("```python\nprint(1 < 2)\n```");
    expect(root.querySelector(".md-code-head span")?.textContent).toBe("python");
    expect(root.querySelector("button.md-copy")?.textContent).toBe("Copy");
    expect(root.querySelector("code")?.textContent).toBe("print(1 < 2)\n");
    expect(root.querySelector(".hljs-built_in")).not.toBeNull();
  });

  it("of an unknown language is plain", () => {
    expect(page("```nonsense\n<b>\n```").querySelector("code")?.innerHTML).toBe("&lt;b&gt;\n");
  });

  it("whose fence is still open is code", () => {
    const blocks = new IncrementalMarkdown(markdown).render("Look:\n\n```js\nlet a = `*b*`", false);
    expect(blocks).toHaveLength(2);
    expect(blocks[1]).toContain("<pre><code>");
    expect(blocks[1]).not.toContain("<em>");
  });
});

describe("formulas", () => {
  it.each([
    ["$x^2$", null],
    ["\\(x^2\\)", null],
    ["$$x^2$$", "block"],
    ["\\[x^2\\]", "block"],
    ["\\[\nx^2\n\\]", "block"],
    ["$$\nx^2\n$$", "block"],
    ["So $$x^2$$ it is", "block"],
  ])("%j is one, displayed as %s", (text, display) => {
    const root = page(text);
    expect(root.querySelector("math msup")).not.toBeNull();
    expect(root.querySelector("math")?.getAttribute("display") ?? null).toBe(display);
    expect(root.textContent).not.toContain("x^2");
  });

  it.each(["It costs $5 and $10.", "a $ b $ c", "\\$x$", "`$x$`", "$$", "$$\nopen", "\\(open"])(
    "%j is none",
    (text) => {
      expect(page(text).querySelector("math")).toBeNull();
    },
  );

  it("with an error show their source", () => {
    expect(page("$\\frac{1$").querySelector("code.md-tex")?.textContent).toBe("\\frac{1");
  });
});

describe("tables", () => {
  it("align their columns by classes", () => {
    const root = page("| a | b |\n| -: | :-: |\n| 1 | 2 |");
    expect([...root.querySelectorAll("td")].map((cell) => cell.className)).toEqual(["md-right", "md-center"]);
    expect(root.querySelector("[style]")).toBeNull();
  });
});

describe("a growing text", () => {
  const text = [
    "# Title\n\nA paragraph with *emphasis* and\r\na second line.\n\n- one\n- two\n\n  more of two\n- three\n\n---\n\n",
    "Setext\n======\n\n| a | b |\n| - | - |\n| 1 | 2 |\n\n```python\n# not a heading\n\nx = 1\n```\n\n> quote\nlazy\n\n",
    "* item\n--\n\n1. first\n2. second\n\n$$\nx\n$$\n\n    indented\n\n    code\n\nThe end $y$.\n",
  ].join("");

  it("ends as the same HTML as the whole text", () => {
    const growing = new IncrementalMarkdown(markdown);
    for (let end = 1; end < text.length; end += 5) growing.render(text.slice(0, end), false);
    expect(growing.render(text, true)).toEqual(new IncrementalMarkdown(markdown).render(text, true));
  });

  it("has at each length what its beginning renders to", () => {
    const growing = new IncrementalMarkdown(markdown);
    for (let end = 1; end < text.length; end += 13) {
      const beginning = text.slice(0, end);
      expect(growing.render(beginning, false)).toEqual(new IncrementalMarkdown(markdown).render(beginning, true));
    }
  });

  it("parses only its last blocks again", () => {
    let parsed = 0;
    const counting = createMarkdown({}, words);
    const parse = counting.parse.bind(counting);
    counting.parse = (source, environment) => {
      parsed += source.length;
      return parse(source, environment);
    };
    const growing = new IncrementalMarkdown(counting);
    let sent = "";
    for (let index = 0; index < 200; index += 1) {
      sent += `Paragraph ${index}.\n\n`;
      growing.render(sent, false);
    }
    expect(growing.render(sent, true)).toHaveLength(200);
    expect(parsed).toBeLessThan(4 * sent.length);
  });

  it("resolves links whose address comes last", () => {
    const growing = new IncrementalMarkdown(markdown);
    growing.render("See [there].\n\nMore.\n\n", false);
    growing.render("See [there].\n\nMore.\n\n[there]: https://a.example\n", false);
    const blocks = growing.render("See [there].\n\nMore.\n\n[there]: https://a.example\n", true);
    expect(blocks[0]).toContain('href="https://a.example"');
  });

  it("that is replaced is rendered anew", () => {
    const growing = new IncrementalMarkdown(markdown);
    growing.render("a\n\nb\n\nc", false);
    expect(growing.render("d", true)).toEqual(["<p>d</p>\n"]);
  });
});
