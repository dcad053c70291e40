/** Where questions are written. */
import { useEffect, useRef, useState } from "preact/hooks";
import { explain } from "../api/errors";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import { Icon } from "../ui/icon";
import { toast } from "../ui/toast";
import { Attachments } from "./attachments";
import { ACCEPTED, attachmentOf, isPdf } from "./files";
import type { Session } from "./session";
import { draft } from "./state";

async function attach(files: Iterable<File>): Promise<void> {
  for (const file of files) {
    try {
      if (isPdf(file)) toast(texts.chat.files.reading(file.name));
      const attachment = await attachmentOf(file);
      draft.attachments.value = [...draft.attachments.value, attachment];
    } catch (error) {
      toast(explain(error), "bad");
    }
  }
}

function filesOf(transfer: DataTransfer | null): File[] {
  return [...(transfer?.files ?? [])];
}

export function Composer({ session }: { session: Session }) {
  const field = useRef<HTMLTextAreaElement>(null);
  const chooser = useRef<HTMLInputElement>(null);
  const [isDropping, setDropping] = useState(false);
  const [text, attachments] = [draft.text.value, draft.attachments.value];
  const { head, messages } = session.shown.value;
  const running = [...session.running.value].filter((id) => messages.has(id));
  const isEmpty = !text.trim() && attachments.length === 0;

  useEffect(() => field.current?.focus(), [head.id]);

  function send() {
    if (isEmpty || running.length > 0) return;
    try {
      // Failures of the answer are shown in the answer.
      void session.ask({ text: text.trim(), attachments });
      draft.text.value = "";
      draft.attachments.value = [];
    } catch (error) {
      toast(explain(error), "bad");
    }
    field.current?.focus();
  }

  function keys(event: KeyboardEvent) {
    // While an input method composes a word, Enter chooses it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  }

  function paste(event: ClipboardEvent) {
    const files = filesOf(event.clipboardData);
    if (files.length === 0) return;
    event.preventDefault();
    void attach(files);
  }

  return (
    <form
      class={`composer ${isDropping ? "dropping" : ""}`}
      aria-label={texts.chat.composer}
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
      onDragOver={(event) => {
        event.preventDefault();
        setDropping(true);
      }}
      onDragLeave={() => setDropping(false)}
      onDrop={(event) => {
        event.preventDefault();
        setDropping(false);
        void attach(filesOf(event.dataTransfer));
      }}
    >
      <Attachments
        files={attachments}
        onRemove={(gone) => {
          draft.attachments.value = attachments.filter((file) => file !== gone);
        }}
      />
      <div class="composer-row">
        <input
          ref={chooser}
          class="visually-hidden"
          type="file"
          multiple
          accept={ACCEPTED}
          aria-hidden="true"
          tabIndex={-1}
          onChange={(event) => {
            void attach([...(event.currentTarget.files ?? [])]);
            event.currentTarget.value = "";
          }}
        />
        <Button kind="quiet" icon label={texts.chat.attach} onPress={() => chooser.current?.click()}>
          <Icon name="attach" />
        </Button>
        <textarea
          ref={field}
          rows={1}
          value={text}
          placeholder={texts.chat.ask}
          aria-label={texts.chat.ask}
          onInput={(event) => {
            draft.text.value = event.currentTarget.value;
          }}
          onKeyDown={keys}
          onPaste={paste}
        />
        {running.length > 0 ? (
          <Button icon label={texts.chat.stop} onPress={() => session.stop()}>
            <Icon name="stop" />
          </Button>
        ) : (
          <Button kind="primary" icon type="submit" label={texts.chat.send} disabled={isEmpty}>
            <Icon name="send" />
          </Button>
        )}
      </div>
    </form>
  );
}
