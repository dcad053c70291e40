"""Finds the calls of one format in an answer, and lets everything else pass as content.

White space between calls and either end of the answer belongs to the format, not to the content.

Hot path: ``push`` runs once a token. Content without the first character of a marker costs one ``find``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence

from modelyard.engine.formats.calls import Calls, new_call_id
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Malformed, Source, Waiting, first_marker, partial_marker
from modelyard.protocol.deltas import ContentDelta, Delta

# Reads a call, or several, that begin behind this marker ("" for a call that needs none).
ReadCalls = Callable[[Source, Calls, str], Waiting]


class CallParser:
    """Parses one answer of a format whose calls begin with a marker, or open the answer.

    Args:
        read: reads the calls behind a marker; raises Malformed where they are none.
        openers: the markers. None may begin another.
        bare: characters that begin a call where they open the answer.
        tools: those of the request.
        new_id: makes the ids of calls.
    """

    __slots__ = (
        "_after_call",
        "_bare",
        "_calls",
        "_first_characters",
        "_openers",
        "_read",
        "_reading",
        "_said",
        "_source",
        "_space",
        "_untouched",
    )

    def __init__(
        self,
        read: ReadCalls,
        *,
        openers: Sequence[str],
        bare: str,
        tools: Iterable[Tool],
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._read = read
        self._openers = tuple(openers)
        self._first_characters = tuple({opener[0] for opener in openers})
        self._bare = bare
        self._source = Source()
        self._calls = Calls(tools, self._source, new_id)
        self._reading: Generator[None, None, None] | None = None
        # White space that is content only where no call follows.
        self._space: list[str] = []
        self._said = False
        self._after_call = False
        # Nothing but white space was said so far, so that a call may still open the answer.
        self._untouched = bool(bare)

    def push(self, text: str) -> list[Delta]:
        """What became certain with ``text``."""
        if not text:
            return []
        if (
            self._reading is None
            and not (self._space or self._after_call or self._untouched)
            and self._source.at == len(self._source.text)
            and not text[-1].isspace()
            and not any(character in text for character in self._first_characters)
        ):
            self._said = True
            return [ContentDelta(text)]
        self._source.feed(text)
        self._go_on()
        return self._calls.deltas()

    def finish(self) -> list[Delta]:
        """What was held back: an unfinished call breaks, unless its arguments were whole."""
        self._source.closed = True
        self._go_on()
        if not self._after_call:
            self._calls.content("".join(self._space))
        return self._calls.deltas()

    def _go_on(self) -> None:
        while self._reading is not None or self._source.at < len(self._source.text):
            if not (self._content() if self._reading is None else self._call(self._reading)):
                return

    def _content(self) -> bool:
        """Let content pass up to the next call; False where more text must come first."""
        source = self._source
        text = source.text[source.at :]
        if self._untouched and (words := text.lstrip()):
            self._untouched = False
            if words[0] in self._bare:
                self._begin_call(text[: len(text) - len(words)], "")
                return True
        at, marker = first_marker(text, self._openers)
        if marker:
            self._begin_call(text[:at], marker)
            return True
        keep = 0 if source.closed else partial_marker(text, self._openers)
        self._pass(text[: len(text) - keep])
        source.at = len(source.text) - keep
        return False

    def _pass(self, text: str) -> None:
        """Tell ``text`` as content, but for the white space at its end: a call may follow."""
        words = text.lstrip()
        if len(words) < len(text):
            self._space.append(text[: len(text) - len(words)])
        if not words:
            return
        text, words = words, words.rstrip()
        self._calls.content(self._space_before_words() + words)
        if len(words) < len(text):
            self._space.append(text[len(words) :])

    def _space_before_words(self) -> str:
        """White space held back is content where words follow, unless it parts the first of them from a call."""
        space = "".join(self._space) if self._said or not self._after_call else ""
        self._space.clear()
        self._said = True
        self._after_call = False
        return space

    def _begin_call(self, before: str, marker: str) -> None:
        self._pass(before)
        self._untouched = False
        self._source.at += len(before)
        self._source.mark()
        self._source.at += len(marker)
        self._reading = self._read(self._source, self._calls, marker)

    def _call(self, reading: Generator[None, None, None]) -> bool:
        """Go on with a call; False where more text must come first."""
        try:
            next(reading)
        except StopIteration:
            self._after_call = True
            self._source.since_mark()
        except Malformed:
            self._calls.content(self._space_before_words())
            self._calls.give_up(self._source.since_mark())
        else:
            return False
        self._reading = None
        return True
