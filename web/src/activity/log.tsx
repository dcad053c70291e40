import { useEffect, useRef, useState } from "preact/hooks";
import { follow } from "../api/follow";
import type { LogLine } from "../api/types";
import { may } from "../state/caller";
import { whileVisible } from "../state/visible";
import { texts } from "../texts/en";
import { clock } from "../texts/format";
import { Button } from "../ui/button";
import { appended, type Level, matching } from "./log-lines";

const LEVELS = Object.keys(texts.log.levels) as Level[];

export function LogView() {
  if (!may("admin")) return <p class="empty">{texts.log.unavailable}</p>;
  return <LiveLog />;
}

function LiveLog() {
  const [lines, setLines] = useState<LogLine[]>([]);
  const [level, setLevel] = useState<Level>("INFO");
  const [text, setText] = useState("");
  const [isPaused, setPaused] = useState(false);
  const list = useRef<HTMLOListElement>(null);

  useEffect(() => {
    if (isPaused) return;
    let pending: LogLine[] = [];
    let timer = 0;
    const end = whileVisible((signal) =>
      follow(
        "v1/logs?follow=true&lines=500",
        {
          onEvent: (event) => {
            if (event.event !== "log") return;
            pending.push(JSON.parse(event.data) as LogLine);
            // Lines that arrive together are drawn together.
            timer ||= window.setTimeout(() => {
              const added = pending;
              pending = [];
              timer = 0;
              setLines((before) => appended(before, added));
            }, 100);
          },
        },
        signal,
      ),
    );
    return () => {
      clearTimeout(timer);
      end();
    };
  }, [isPaused]);

  const shown = matching(lines, level, text);

  // The list follows its end, unless somebody has scrolled up to read.
  const isAtEnd = useRef(true);
  useEffect(() => {
    const element = list.current;
    if (element && isAtEnd.current) element.scrollTop = element.scrollHeight;
  }, [shown.length, lines]);

  return (
    <>
      <div class="row filters">
        <label class="field">
          {texts.log.level}
          <select class="input" value={level} onChange={(event) => setLevel(event.currentTarget.value as Level)}>
            {LEVELS.map((name) => (
              <option key={name} value={name}>
                {texts.log.levels[name]}
              </option>
            ))}
          </select>
        </label>
        <label class="field grow">
          {texts.log.text}
          <input
            class="input"
            type="search"
            placeholder={texts.log.placeholder}
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
          />
        </label>
        <Button onPress={() => setPaused(!isPaused)}>{isPaused ? texts.log.resume : texts.log.pause}</Button>
      </div>
      <ol
        ref={list}
        class="panel log"
        aria-label={texts.log.caption}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by the keyboard.
        tabIndex={0}
        onScroll={({ currentTarget: box }) => {
          isAtEnd.current = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
        }}
      >
        {shown.length === 0 && <li class="empty">{texts.log.none}</li>}
        {shown.map((line) => (
          <li key={line.id} class={line.level.toLowerCase()}>
            <time dateTime={line.time}>{clock(Date.parse(line.time) / 1_000)}</time>
            <span class="log-level">{line.level}</span>
            <span class="wrap-anywhere">{line.message}</span>
          </li>
        ))}
      </ol>
    </>
  );
}
