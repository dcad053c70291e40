"""Finds the calls of one format in an answer, and passes everything else on as content.

White space between a call and either end of the answer is not content. A call that was cut off is left out, and so is
the beginning of a marker at the end of an answer that was cut off.

Hot path: ``push`` runs once a token. Content without the first character of a marker costs one ``find``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator, Iterable, Sequence

from modelyard.engine.formats.calls import Calls, new_call_id
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Malformed, Source, Waiting, first_marker, partial_marker
from modelyard.protocol.deltas import ContentDelta, Delta

# Reads one or more calls behind a marker, the third argument; "" for a call without a marker.
ReadCalls = Callable[[Source, Calls, str], Waiting]

# A cut answer that ends with fewer characters of a marker may as well end with prose, such as "a <".
_MIN_CUT_MARKER_LENGTH = 3

# The end of a call without a marker that was cut off within its name.
_LAST_WORD = re.compile(r"[\w.-]+\Z")


class CallParser:
    """Parses one answer of a format whose calls begin with a marker, or open the answer.

    Args:
        read: reads the calls behind a marker; raises Malformed if they are none.
        openers: the markers, of which none may be the beginning of another.
        bare: characters that begin a call if they open the answer.
        tools: the tools of the request.
        closers: texts that end a call; stray ones behind a call are left out.
        ambiguous: openers that content begins with, too.
        new_id: makes the ids of calls.
        max_calls: limit of calls. All that follows the last one is left out.
    """

    __slots__ = (
        "_after_call",
        "_ambiguous",
        "_bare",
        "_calls",
        "_first_characters",
        "_has_content",
        "_is_blank",
        "_marker",
        "_openers",
        "_read",
        "_reader",
        "_source",
        "_space",
    )

    def __init__(
        self,
        read: ReadCalls,
        *,
        openers: Sequence[str],
        bare: str,
        tools: Iterable[Tool],
        closers: Sequence[str] = (),
        ambiguous: Collection[str] = (),
        new_id: Callable[[], str] = new_call_id,
        max_calls: int | None = None,
    ) -> None:
        self._read = read
        self._ambiguous = ambiguous
        self._openers = tuple(openers)
        self._first_characters = tuple({opener[0] for opener in openers})
        self._bare = bare
        self._source = Source(closers)
        self._calls = Calls(tools, self._source, new_id, max_calls)
        self._reader: Generator[None, None, None] | None = None
        # The marker of the call that is being read.
        self._marker = ""
        # White space that is content only if no call follows.
        self._space: list[str] = []
        self._has_content = False
        self._after_call = False
        # Whether the answer is white space so far, so that a bare call may still open it.
        self._is_blank = bool(bare)

    def push(self, text: str) -> list[Delta]:
        """Return the deltas that became certain with ``text``."""
        if not text:
            return []
        if (
            self._reader is None
            and not (self._space or self._after_call or self._is_blank)
            and self._source.at == len(self._source.text)
            and not text[-1].isspace()
            and not any(character in text for character in self._first_characters)
        ):
            self._has_content = True
            return [ContentDelta(text)]
        self._source.feed(text)
        self._parse()
        return self._calls.deltas()

    def finish(self, *, is_cut: bool = False) -> list[Delta]:
        """Return the deltas of the text that was held back. An incomplete call is content, or left out if cut off."""
        self._source.closed, self._source.is_cut = True, is_cut
        self._parse()
        if not self._after_call:
            self._calls.content("".join(self._space))
        return self._calls.deltas()

    def _parse(self) -> None:
        while self._reader is not None or self._source.at < len(self._source.text):
            if not (self._content() if self._reader is None else self._call(self._reader)):
                return

    def _content(self) -> bool:
        """Pass content on up to the next call; return False if more text is needed."""
        source = self._source
        text = source.text[source.at :]
        if self._is_blank and (words := text.lstrip()):
            self._is_blank = False
            if words[0] in self._bare:
                self._begin_call(text[: len(text) - len(words)], "")
                return True
        if self._after_call and (skipped := self._stray_closer(text)) is not None:
            source.at += skipped
            if skipped:
                self._space.clear()
            return skipped > 0
        at, marker = first_marker(text, self._openers)
        if marker:
            self._begin_call(text[:at], marker)
            return True
        keep = partial_marker(text, self._openers)
        if source.closed:
            is_dropped = source.is_cut and keep >= _MIN_CUT_MARKER_LENGTH
            self._pass(text[: len(text) - keep] if is_dropped else text)
            source.at = len(source.text)
            return False
        self._pass(text[: len(text) - keep])
        source.at = len(source.text) - keep
        return False

    def _stray_closer(self, text: str) -> int | None:
        """Return the length of a closer, and the white space before it, that begins ``text`` behind a call.

        0: more text is needed to tell. None: there is none.
        """
        words = text.lstrip()
        space = len(text) - len(words)
        for closer in self._source.closers:
            if words.startswith(closer):
                return space + len(closer)
        if words and any(closer.startswith(words) for closer in self._source.closers):
            if not self._source.closed:
                return 0
            return len(text) if self._source.is_cut else None
        return None

    def _pass(self, text: str) -> None:
        """Pass ``text`` on as content, without the white space at its end, because a call may follow."""
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
        """Return the white space held back before content; "" between a call and the first content."""
        space = "".join(self._space) if self._has_content or not self._after_call else ""
        self._space.clear()
        self._has_content = True
        self._after_call = False
        return space

    def _begin_call(self, before: str, marker: str) -> None:
        self._pass(before)
        self._is_blank = False
        self._source.at += len(before)
        self._source.mark()
        self._source.at += len(marker)
        self._marker = marker
        self._reader = self._read(self._source, self._calls, marker)

    def _call(self, reader: Generator[None, None, None]) -> bool:
        """Continue to read a call; return False if more text is needed."""
        try:
            next(reader)
        except StopIteration:
            self._after_call = True
            self._source.since_mark()
        except Malformed:
            self._give_up(self._source.since_mark())
        else:
            return False
        self._reader = None
        return True

    def _give_up(self, text: str) -> None:
        """Pass on the ``text`` of a call that is none; leave it out if a call was cut off within it."""
        source, calls = self._source, self._calls
        if self._marker:
            is_call = calls.has_begun or self._marker not in self._ambiguous
        else:
            word = _LAST_WORD.search(text)
            is_call = calls.has_begun or (word is not None and any(name.startswith(word[0]) for name in calls.tools))
        calls.drop()
        if source.is_cut and is_call:
            # The rest of a cut call is no content either.
            source.at = len(source.text)
            self._space.clear()
            self._after_call = True
            return
        calls.content(self._space_before_words())
        calls.content(text)
