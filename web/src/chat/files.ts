/** Files that are pasted, dropped or chosen, as attachments. */
import { texts } from "../texts/en";
import { readPdf } from "./pdf";
import type { Attachment } from "./types";

const MAX_MEDIA_BYTES = 20 << 20;
const MAX_TEXT_BYTES = 2 << 20;
const IMAGES = ["image/png", "image/jpeg", "image/gif", "image/webp"];
/** The ends of names of sound files -> the types under which the server knows them. */
const SOUNDS = new Map([
  ["wav", "audio/wav"],
  ["mp3", "audio/mpeg"],
  ["flac", "audio/flac"],
  ["ogg", "audio/ogg"],
]);

/** What the dialog for files offers first. */
export const ACCEPTED = [...IMAGES, ...[...SOUNDS.keys()].map((end) => `.${end}`), ".pdf", "text/*"].join(",");

/** A file that cannot be attached, in words for the person. */
export class Unattachable extends Error {}

function refuse(file: File, why: string): Unattachable {
  return new Unattachable(`${file.name}: ${why}`);
}

function dataUrl(file: Blob, type: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(new Blob([file], { type }));
  });
}

/** The text of a file; undefined: its bytes are no text. */
export function textOf(bytes: ArrayBuffer): string | undefined {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return text.includes("\u0000") ? undefined : text;
  } catch {
    return undefined;
  }
}

function isPdf({ name, type }: File): boolean {
  return type === "application/pdf" || /\.pdf$/i.test(name);
}

async function pdfText(file: File): Promise<string> {
  const words = texts.chat.files;
  if (file.size > MAX_MEDIA_BYTES) throw refuse(file, words.tooLarge(MAX_MEDIA_BYTES >> 20));
  const read = await readPdf(file);
  if ("failure" in read) throw refuse(file, words.pdf[read.failure]);
  if (read.text === "") throw refuse(file, words.pdf.pictures);
  if (read.text.length > MAX_TEXT_BYTES) throw refuse(file, words.pdf.long(MAX_TEXT_BYTES >> 20));
  return read.text;
}

/**
 * Return a file as an attachment. Of a PDF file that is its text.
 *
 * @throws Unattachable it is too large, or of a kind that no model reads.
 */
export async function attachmentOf(file: File): Promise<Attachment> {
  const { name, type, size } = file;
  const sound = SOUNDS.get(name.split(".").at(-1)?.toLowerCase() ?? "");
  const isImage = IMAGES.includes(type);
  if (isImage || sound !== undefined) {
    if (size > MAX_MEDIA_BYTES) throw refuse(file, texts.chat.files.tooLarge(MAX_MEDIA_BYTES >> 20));
    const data = await dataUrl(file, isImage ? type : (sound ?? type));
    return { kind: isImage ? "image" : "audio", name: name || "image", data };
  }
  if (isPdf(file)) return { kind: "text", name, data: await pdfText(file) };
  if (size > MAX_TEXT_BYTES) throw refuse(file, texts.chat.files.tooLarge(MAX_TEXT_BYTES >> 20));
  const text = textOf(await file.arrayBuffer());
  if (text === undefined) throw refuse(file, texts.chat.files.unknown);
  return { kind: "text", name, data: text };
}

/** Offer `text` as a file. */
export function download(text: string, name: string, type: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The browser reads the file after the click has returned.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
