/** The text of a PDF file. Loaded with the first one, in a worker. */
import { extractText, getDocumentProxy } from "unpdf";

/** The text of all pages, or why there is none. */
export type PdfText = { text: string } | { failure: "damaged" | "password" };

export async function textOfPdf(bytes: ArrayBuffer): Promise<PdfText> {
  try {
    const document = await getDocumentProxy(new Uint8Array(bytes), { disableFontFace: true, verbosity: 0 });
    const { text } = await extractText(document);
    return { text: text.join("\n\n").trim() };
  } catch (error) {
    // Files of strangers are damaged in any way, of which the reader tells in its own words.
    const isLocked = error instanceof Error && error.name === "PasswordException";
    return { failure: isLocked ? "password" : "damaged" };
  }
}
