/** The branch of a conversation that is shown. */
import { memo } from "preact/compat";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import { Icon } from "../ui/icon";
import { Answer } from "./answer";
import { useNear } from "./near";
import { Question } from "./question";
import type { Session } from "./session";
import { activePath, type Step } from "./tree";
import type { Message } from "./types";

/** Nearer to its end than this, a conversation follows its growing answer. */
const FOLLOWS_WITHIN_PX = 48;

function Branches({ session, step }: { session: Session; step: Step }) {
  const { branches, message } = step;
  if (branches.length < 2) return null;
  const at = branches.findIndex(({ id }) => id === message.id);
  const go = (to: number) => {
    const branch = branches[to];
    if (branch !== undefined) session.select(branch);
  };
  return (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset is for fields.
    <div class="branches" role="group" aria-label={texts.chat.branches}>
      <Button kind="quiet" icon label={texts.chat.previousBranch} disabled={at === 0} onPress={() => go(at - 1)}>
        <Icon name="left" />
      </Button>
      <span class="small muted">
        {at + 1} / {branches.length}
      </span>
      <Button
        kind="quiet"
        icon
        label={texts.chat.nextBranch}
        disabled={at === branches.length - 1}
        onPress={() => go(at + 1)}
      >
        <Icon name="right" />
      </Button>
    </div>
  );
}

function Column({
  session,
  message,
  step,
  isLast,
}: {
  session: Session;
  message: Message;
  step: Step;
  isLast: boolean;
}) {
  const isChosen = message.id === step.message.id;
  return (
    <section class={`column ${isChosen ? "chosen" : ""}`} aria-label={message.model ?? ""}>
      <header>
        <strong class="wrap-anywhere">{message.model}</strong>
        <Button
          kind="quiet"
          pressed={isChosen}
          title={texts.chat.goOnWithHint}
          label={`${isChosen ? texts.chat.goesOn : texts.chat.goOnWith}: ${message.model}`}
          onPress={() => session.select(message)}
        >
          {isChosen ? texts.chat.goesOn : texts.chat.goOnWith}
        </Button>
      </header>
      <Answer session={session} message={message} isLast={isLast && isChosen} />
    </section>
  );
}

interface PlaceProps {
  session: Session;
  step: Step;
  isLast: boolean;
}

function isSame(before: PlaceProps, after: PlaceProps): boolean {
  const [one, other] = [before.step, after.step];
  const same = (left: Message[], right: Message[]) =>
    left.length === right.length && left.every((message, index) => message === right[index]);
  return (
    before.isLast === after.isLast &&
    one.message === other.message &&
    same(one.group, other.group) &&
    same(one.branches, other.branches)
  );
}

const Place = memo(function Place({ session, step, isLast }: PlaceProps) {
  const element = useRef<HTMLLIElement>(null);
  const isNear = useNear(element) || isLast;
  const { message, group } = step;
  const isQuestion = message.role === "user";
  return (
    <li ref={element} class={`place ${message.role} ${group.length > 1 ? "compared" : ""}`}>
      <h2 class={isQuestion ? "visually-hidden" : "answer-head"}>
        {isQuestion ? texts.chat.you : group.length > 1 ? texts.chat.compared : message.model}
      </h2>
      {!isNear ? (
        <div class="far">{message.text}</div>
      ) : isQuestion ? (
        <Question session={session} message={message} />
      ) : group.length > 1 ? (
        <div class="columns">
          {group.map((each) => (
            <Column key={each.id} session={session} message={each} step={step} isLast={isLast} />
          ))}
        </div>
      ) : (
        <Answer session={session} message={message} isLast={isLast} />
      )}
      <Branches session={session} step={step} />
    </li>
  );
}, isSame);

export function Messages({ session }: { session: Session }) {
  const conversation = session.shown.value;
  const path = useMemo(() => activePath(conversation), [conversation]);
  const scroller = useRef<HTMLDivElement>(null);
  const list = useRef<HTMLOListElement>(null);
  const follows = useRef(true);
  const [isAway, setAway] = useState(false);

  const shape = path.some(({ group }) => group.length > 1) ? "messages wide" : "messages";

  function toEnd() {
    const element = scroller.current;
    if (element) element.scrollTop = element.scrollHeight;
  }

  useEffect(() => {
    follows.current = true;
    toEnd();
    if (list.current === null) return;
    const observer = new ResizeObserver(() => follows.current && toEnd());
    observer.observe(list.current);
    return () => observer.disconnect();
  }, [conversation.head.id]);

  useEffect(() => {
    // A question of one's own is always shown.
    if (path.at(-1)?.message.state !== "streaming") return;
    follows.current = true;
    toEnd();
  }, [path.length]);

  function scrolled() {
    const element = scroller.current;
    if (!element) return;
    const isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < FOLLOWS_WITHIN_PX;
    follows.current = isAtEnd;
    setAway(!isAtEnd);
  }

  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by the keyboard.
    <section ref={scroller} class={shape} aria-label={texts.chat.conversation} tabIndex={0} onScroll={scrolled}>
      <ol ref={list}>
        {path.map((step, index) => (
          <Place
            key={step.message.parent ?? "first"}
            session={session}
            step={step}
            isLast={index === path.length - 1}
          />
        ))}
      </ol>
      {isAway && (
        <div class="to-end">
          <Button onPress={toEnd}>
            <Icon name="down" /> {texts.chat.toEnd}
          </Button>
        </div>
      )}
    </section>
  );
}
