/** One question of the person. */
import { memo } from "preact/compat";
import { useEffect, useRef, useState } from "preact/hooks";
import { explain } from "../api/errors";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import { Icon } from "../ui/icon";
import { toast } from "../ui/toast";
import { Attachments } from "./attachments";
import type { Session } from "./session";
import type { Message } from "./types";

function Editor({ session, message, onEnd }: { session: Session; message: Message; onEnd: () => void }) {
  const [text, setText] = useState(message.text);
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => field.current?.focus(), []);

  function send() {
    try {
      void session.ask({ text: text.trim(), attachments: message.attachments ?? [] }, message);
      onEnd();
    } catch (error) {
      toast(explain(error), "bad");
    }
  }

  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <textarea
        ref={field}
        class="input"
        aria-label={texts.chat.edit}
        rows={Math.min(12, text.split("\n").length + 1)}
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") onEnd();
        }}
      />
      <div class="row">
        <Button kind="primary" type="submit" disabled={!text.trim()}>
          {texts.chat.askAgain}
        </Button>
        <Button onPress={onEnd}>{texts.common.cancel}</Button>
      </div>
    </form>
  );
}

export const Question = memo(function Question({ session, message }: { session: Session; message: Message }) {
  const [isEdited, setEdited] = useState(false);
  if (isEdited) return <Editor session={session} message={message} onEnd={() => setEdited(false)} />;
  return (
    <div class="question">
      <Attachments files={message.attachments ?? []} />
      {(message.results ?? []).map((result) => (
        <pre key={result.callId} class="given-result">
          {result.text}
        </pre>
      ))}
      {message.text && <div class="question-text">{message.text}</div>}
      <div class="question-foot">
        {!message.results && (
          <Button kind="quiet" icon label={texts.chat.edit} onPress={() => setEdited(true)}>
            <Icon name="edit" />
          </Button>
        )}
        <Button kind="quiet" icon label={texts.chat.removeFrom} onPress={() => session.removeBranch(message.id)}>
          <Icon name="trash" />
        </Button>
      </div>
    </div>
  );
});
