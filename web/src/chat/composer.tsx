/** Where questions are written. */
import { useEffect, useRef } from "preact/hooks";
import { explain } from "../api/errors";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import { Icon } from "../ui/icon";
import { toast } from "../ui/toast";
import { attach } from "./attach";
import { Attachments } from "./attachments";
import { ACCEPTED } from "./files";
import type { Session } from "./session";
import { draft } from "./state";

export interface ComposerProps {
  session: Session;
  /** Whether files are held over the chat, which will be attached. */
  isDropping: boolean;
}

export function Composer({ session, isDropping }: ComposerProps) {
  const field = useRef<HTMLTextAreaElement>(null);
  const chooser = useRef<HTMLInputElement>(null);
  const [text, attachments, reading] = [draft.text.value, draft.attachments.value, draft.reading.value];
  const { head, messages } = session.shown.value;
  const running = [...session.running.value].filter((id) => messages.has(id));
  // A file that is still read would go with the next question.
  const isReady = reading.length === 0 && (text.trim() !== "" || attachments.length > 0);

  useEffect(() => field.current?.focus(), [head.id]);

  function send() {
    if (!isReady || running.length > 0) return;
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
    const files = [...(event.clipboardData?.files ?? [])];
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
    >
      <Attachments
        files={attachments}
        onRemove={(gone) => {
          draft.attachments.value = attachments.filter((file) => file !== gone);
        }}
      />
      <p class="muted small" role="status">
        {reading.map(({ name }) => texts.chat.files.reading(name)).join(" ")}
      </p>
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
          <Button kind="primary" icon type="submit" label={texts.chat.send} disabled={!isReady}>
            <Icon name="send" />
          </Button>
        )}
      </div>
    </form>
  );
}
