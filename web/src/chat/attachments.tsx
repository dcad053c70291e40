/** The files of a message or of the composer. */
import { texts } from "../texts/en";
import { Icon } from "../ui/icon";
import type { Attachment } from "./types";

function Preview({ kind, name, data }: Attachment) {
  if (kind === "image") return <img src={data} alt={name} />;
  // biome-ignore lint/a11y/useMediaCaption: it is the person's own sound, of which there are no captions.
  if (kind === "audio") return <audio controls src={data} aria-label={name} />;
  return (
    <details>
      <summary>{name}</summary>
      <pre>{data}</pre>
    </details>
  );
}

export function Attachments({ files, onRemove }: { files: Attachment[]; onRemove?: (file: Attachment) => void }) {
  if (files.length === 0) return null;
  return (
    <ul class="attachments" aria-label={texts.chat.files.title}>
      {files.map((file) => (
        <li key={file.name + file.data.length} class={file.kind}>
          <Preview {...file} />
          {onRemove && (
            <button
              class="button quiet icon"
              type="button"
              aria-label={`${texts.common.remove}: ${file.name}`}
              onClick={() => onRemove(file)}
            >
              <Icon name="close" size={14} />
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}
