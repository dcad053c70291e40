// @vitest-environment node
import { expect, it } from "vitest";
import { textOfPdf } from "./pdf-text";

/** A document with a page for each text. Readers find its objects without an index. */
function pdf(...texts: string[]): ArrayBuffer {
  const kids = texts.map((_, index) => `${4 + 2 * index} 0 R`).join(" ");
  const pages = texts.map((text, index) => {
    const content = `BT /F1 18 Tf 20 100 Td (${text}) Tj ET`;
    const at = 4 + 2 * index;
    return (
      `${at} 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents ${at + 1} 0 R` +
      `/Resources<</Font<</F1 3 0 R>>>>>>endobj\n` +
      `${at + 1} 0 obj<</Length ${content.length}>>stream\n${content}\nendstream endobj\n`
    );
  });
  const file =
    `%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n` +
    `2 0 obj<</Type/Pages/Kids[${kids}]/Count ${texts.length}>>endobj\n` +
    `3 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\n${pages.join("")}trailer<</Root 1 0 R>>\n`;
  return new TextEncoder().encode(file).buffer as ArrayBuffer;
}

it("is that of all pages", async () => {
  expect(await textOfPdf(pdf("The first page.", "The second page."))).toEqual({
    text: "The first page.\n\nThe second page.",
  });
});

it("is empty where the pages are pictures", async () => {
  expect(await textOfPdf(pdf(""))).toEqual({ text: "" });
});

it("is not found in a damaged file", async () => {
  expect(await textOfPdf(new TextEncoder().encode("%PDF-1.4 and nothing else").buffer as ArrayBuffer)).toEqual({
    failure: "damaged",
  });
});
