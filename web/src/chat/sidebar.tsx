/** The conversations of this browser. */
import { useEffect, useRef, useState } from "preact/hooks";
import { go } from "../state/route";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { Icon } from "../ui/icon";
import { Menu } from "../ui/menu";
import { toast } from "../ui/toast";
import { download } from "./files";
import type { Session } from "./session";
import { newId } from "./state";
import { fileName, fromJson, toJson, toMarkdown } from "./transfer";
import type { ConversationHead } from "./types";

const SEARCHES_AFTER_MS = 150;

/** Begin at once: the address changes later, and a question may have been sent by then. */
function beginChat(session: Session): void {
  session.begin(session.shown.value.head);
  go("chat");
}

async function exportJson(session: Session, ids: string[], title: string): Promise<void> {
  download(toJson(await session.conversations(ids)), fileName(title, "json"), "application/json");
}

async function exportMarkdown(session: Session, { id, title }: ConversationHead): Promise<void> {
  const [conversation] = await session.conversations([id]);
  if (conversation) download(toMarkdown(conversation), fileName(title, "md"), "text/markdown");
}

async function importFile(session: Session, file: File): Promise<void> {
  const conversations = fromJson(await file.text(), newId);
  await session.add(conversations);
  toast(texts.chat.imported(conversations.length), "good");
}

function Rename({ session, head, onClose }: { session: Session; head: ConversationHead; onClose: () => void }) {
  const [title, setTitle] = useState(head.title);
  return (
    <Dialog title={texts.chat.rename} onClose={onClose}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          session.rename(head.id, title.trim());
          onClose();
        }}
      >
        <input
          class="input"
          aria-label={texts.chat.titleField}
          value={title}
          maxLength={200}
          onInput={(event) => setTitle(event.currentTarget.value)}
        />
        <Button kind="primary" type="submit" disabled={!title.trim()}>
          {texts.common.save}
        </Button>
      </form>
    </Dialog>
  );
}

function Entry({ session, head }: { session: Session; head: ConversationHead }) {
  const [dialog, setDialog] = useState<"rename" | "remove" | null>(null);
  const isShown = session.shown.value.head.id === head.id;
  const close = () => setDialog(null);

  async function remove() {
    close();
    await session.remove(head.id);
    if (isShown) go("chat");
  }

  return (
    <li class={isShown ? "shown" : ""}>
      <a href={`#/chat/${head.id}`} aria-current={isShown ? "page" : undefined} title={head.title}>
        {head.title}
      </a>
      <Menu
        label={`${texts.chat.more}: ${head.title}`}
        items={[
          { title: texts.chat.rename, onPress: () => setDialog("rename") },
          { title: texts.chat.exportMarkdown, onPress: () => exportMarkdown(session, head) },
          { title: texts.chat.exportJson, onPress: () => exportJson(session, [head.id], head.title) },
          { title: texts.chat.delete, danger: true, onPress: () => setDialog("remove") },
        ]}
      >
        <Icon name="more" />
      </Menu>
      {dialog === "rename" && <Rename session={session} head={head} onClose={close} />}
      {dialog === "remove" && (
        <Dialog
          title={texts.chat.deleteQuestion}
          onClose={close}
          actions={
            <>
              <Button onPress={close}>{texts.common.cancel}</Button>
              <Button kind="danger" onPress={remove}>
                {texts.chat.delete}
              </Button>
            </>
          }
        >
          <p class="wrap-anywhere">{head.title}</p>
        </Dialog>
      )}
    </li>
  );
}

export function Sidebar({ session }: { session: Session }) {
  const [words, setWords] = useState("");
  const [found, setFound] = useState<Set<string> | null>(null);
  const chooser = useRef<HTMLInputElement>(null);
  const heads = session.heads.value.filter(({ id }) => found === null || found.has(id));

  useEffect(() => {
    if (!words.trim()) {
      setFound(null);
      return;
    }
    let isWanted = true;
    const timer = setTimeout(async () => {
      const matches = await session.search(words);
      if (isWanted) setFound(matches);
    }, SEARCHES_AFTER_MS);
    return () => {
      isWanted = false;
      clearTimeout(timer);
    };
  }, [words, session]);

  return (
    <nav class="conversations" aria-label={texts.chat.conversations}>
      <div class="row">
        <Button kind="primary" onPress={() => beginChat(session)}>
          <Icon name="plus" /> {texts.chat.new}
        </Button>
        <Menu
          label={texts.chat.allConversations}
          items={[
            { title: texts.chat.import, onPress: () => chooser.current?.click() },
            {
              title: texts.chat.exportAll,
              onPress: () =>
                exportJson(
                  session,
                  session.heads.value.map(({ id }) => id),
                  texts.chat.conversations,
                ),
            },
          ]}
        >
          <Icon name="more" />
        </Menu>
        <input
          ref={chooser}
          class="visually-hidden"
          type="file"
          accept="application/json,.json"
          aria-hidden="true"
          tabIndex={-1}
          onChange={async ({ currentTarget }) => {
            const [file] = currentTarget.files ?? [];
            if (file) await importFile(session, file).catch((error: Error) => toast(error.message, "bad"));
            currentTarget.value = "";
          }}
        />
      </div>
      <input
        class="input"
        type="search"
        value={words}
        placeholder={texts.chat.search}
        aria-label={texts.chat.search}
        onInput={(event) => setWords(event.currentTarget.value)}
      />
      {heads.length === 0 && <p class="muted small">{words ? texts.chat.nothingFound : texts.chat.none}</p>}
      <ul>
        {heads.map((head) => (
          <Entry key={head.id} session={session} head={head} />
        ))}
      </ul>
    </nav>
  );
}
