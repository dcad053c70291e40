/** The chat: conversations at the side, the one that is shown, and the composer. */
import { useEffect, useState } from "preact/hooks";
import { type Route, route } from "../state/route";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import { Icon } from "../ui/icon";
import { toast } from "../ui/toast";
import { attach } from "./attach";
import { Composer } from "./composer";
import { useDrop } from "./drop";
import { Messages } from "./messages";
import { ModelPicker } from "./models";
import type { Session } from "./session";
import { SettingsDialog } from "./settings";
import { Sidebar } from "./sidebar";
import { draft, session as started, startSession } from "./state";
import "./chat.css";

/** Show what the address names: a conversation, or a new one with a model and a question, which is not sent. */
async function follow(session: Session, { rest, query }: Route): Promise<void> {
  const [asked, prompt] = [query.getAll("model").filter(Boolean), query.get("prompt")];
  if (rest) {
    if (await session.show(rest)) return;
    toast(texts.chat.unknownConversation);
    history.replaceState(null, "", "#/chat");
    return;
  }
  if (asked.length === 0 && prompt === null) return;
  session.begin();
  if (asked.length > 0) session.configure({ models: asked });
  if (prompt !== null) draft.text.value = prompt;
  // A reload later on would put the question back.
  history.replaceState(null, "", "#/chat");
}

function Chat({ session }: { session: Session }) {
  const [hasSettings, setSettings] = useState(false);
  const [hasSidebar, setSidebar] = useState(false);
  const place = route.value;
  const { head, messages } = session.shown.value;
  const isBlank = messages.size === 0;
  const { isOver: isDropping, handlers } = useDrop(attach);

  useEffect(() => {
    if (place.page === "chat") void follow(session, place);
  }, [session, place]);

  useEffect(() => setSidebar(false), [place, head.id]);

  useEffect(() => {
    // A conversation has an address once it has a message.
    if (!isBlank && !location.hash.endsWith(head.id)) {
      history.replaceState(null, "", `#/chat/${head.id}`);
    }
  }, [isBlank, head.id]);

  return (
    <div class={`chat ${hasSidebar ? "with-sidebar" : ""}`} {...handlers}>
      <Sidebar session={session} />
      <div class="talk">
        <header class="talk-head">
          <Button
            kind="quiet"
            icon
            label={texts.chat.conversations}
            pressed={hasSidebar}
            onPress={() => setSidebar(!hasSidebar)}
          >
            <Icon name="menu" />
          </Button>
          <ModelPicker session={session} />
          <h1 class="talk-title">{head.title || texts.chat.title}</h1>
          <Button kind="quiet" icon label={texts.chat.settings.title} onPress={() => setSettings(true)}>
            <Icon name="settings" />
          </Button>
        </header>
        {isBlank ? (
          <div class="blank">
            <p>{texts.chat.blank}</p>
            <p class="muted small">{texts.chat.blankHint}</p>
          </div>
        ) : (
          <Messages session={session} />
        )}
        <Composer session={session} isDropping={isDropping} />
      </div>
      {hasSettings && <SettingsDialog session={session} onClose={() => setSettings(false)} />}
      <div class="visually-hidden" role="status" aria-live="polite">
        {session.announcement.value}
      </div>
    </div>
  );
}

export default function ChatPage() {
  useEffect(() => {
    void startSession();
  }, []);
  const session = started.value;
  return session ? <Chat session={session} /> : <p class="empty">{texts.common.loading}</p>;
}
