"""Text that is marked by the origin of its characters: those that a chat template wrote, and those of the request.

Control tokens may only stand for what the template wrote. A template's literals are ``MarkedText``, and everything that
a request brings is ``str``. Operations that templates use keep the marks, character by character. All others yield
``str``, so that text of unknown origin counts as content.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, SupportsIndex

# Offsets, in ascending order, at which text of the template and content alternate. A text begins as the template's, so
# that () is all template and (0,) is all content.
_Cuts = tuple[int, ...]

_TEMPLATE: Final[_Cuts] = ()
_CONTENT: Final[_Cuts] = (0,)

# Source: https://docs.python.org/3/library/stdtypes.html#printf-style-string-formatting
_CONVERSION: Final = re.compile(r"%(?:\((?P<key>[^()]*)\))?(?P<how>[#0\- +]*\d*(?:\.\d*)?[hlL]?)(?P<kind>[a-zA-Z%])")


class MarkedText(str):
    """A text with a mark on each character; see the module. Everything in ``MarkedText(text)`` is content."""

    __slots__ = ("_cuts",)
    _cuts: _Cuts

    def __new__(cls, text: str = "") -> MarkedText:
        """Return ``text`` as content, which also is what code that is unaware of marks makes of any text."""
        return _marked(text, _CONTENT)

    def __str__(self) -> str:
        return self

    def __iter__(self) -> Iterator[str]:
        return (self[at] for at in range(len(self))) if self._cuts else map(by_template, str.__iter__(self))

    def __getitem__(self, key: SupportsIndex | slice) -> MarkedText:
        text = str.__getitem__(self, key)
        if not self._cuts:
            return _marked(text, _TEMPLATE)
        if not isinstance(key, slice):
            at = range(len(self))[key]
            return _marked(text, _part(self._cuts, at, at + 1))
        start, stop, step = key.indices(len(self))
        if step == 1:
            return _marked(text, _part(self._cuts, start, max(start, stop)))
        marks = _Marks()
        for at in range(start, stop, step):
            marks.add(1, _part(self._cuts, at, at + 1))
        return _marked(text, marks.cuts)

    def __add__(self, other: str) -> MarkedText:
        if not isinstance(other, str) or hasattr(other, "__html__"):
            # Jinja's Markup escapes what is added to it.
            return NotImplemented
        return _sum(self, other)

    def __radd__(self, other: str) -> MarkedText:
        return _sum(other, self) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> MarkedText:
        text = str.__mul__(self, times)
        marks = _Marks()
        for _ in range(len(text) // len(self) if self._cuts and text else 0):
            marks.add(len(self), self._cuts)
        return _marked(text, marks.cuts)

    __rmul__ = __mul__

    def __mod__(self, values: Any) -> str:
        text = str.__mod__(self, values)
        filled = _filled(self, values)
        return filled if filled == text else text

    def join(self, texts: Iterable[str], /) -> MarkedText:
        return joined(texts, self)

    def strip(self, chars: str | None = None, /) -> MarkedText:
        return self._kept(len(self) - len(str.lstrip(self, chars)), str.strip(self, chars))

    def lstrip(self, chars: str | None = None, /) -> MarkedText:
        text = str.lstrip(self, chars)
        return self._kept(len(self) - len(text), text)

    def rstrip(self, chars: str | None = None, /) -> MarkedText:
        return self._kept(0, str.rstrip(self, chars))

    def removeprefix(self, prefix: str, /) -> MarkedText:
        text = str.removeprefix(self, prefix)
        return self._kept(len(self) - len(text), text)

    def removesuffix(self, suffix: str, /) -> MarkedText:
        return self._kept(0, str.removesuffix(self, suffix))

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._parts(str.split(self, sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._parts(str.rsplit(self, sep, maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[str]:
        lines: list[str] = []
        at = 0
        for line, whole in zip(str.splitlines(self, keepends), str.splitlines(self, True), strict=True):
            lines.append(self._kept(at, line))
            at += len(whole)
        return lines

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        return self._three(str.partition(self, sep))

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        return self._three(str.rpartition(self, sep))

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> MarkedText:
        text = str.replace(self, old, new, count)
        new_cuts = _cuts_of(new)
        if not self._cuts and (not new_cuts or not new):
            return _marked(text, _TEMPLATE)
        marks = _Marks()
        end = 0
        for at in _occurrences(self, old, count.__index__()):
            marks.add(at - end, _part(self._cuts, end, at))
            marks.add(len(new), new_cuts)
            end = at + len(old)
        marks.add(len(self) - end, _part(self._cuts, end, len(self)))
        return _marked(text, marks.cuts)

    def upper(self) -> str:
        return self._in_case(str.upper(self))

    def lower(self) -> str:
        return self._in_case(str.lower(self))

    def title(self) -> str:
        return self._in_case(str.title(self))

    def capitalize(self) -> str:
        return self._in_case(str.capitalize(self))

    def _kept(self, start: int, text: str) -> MarkedText:
        """Return ``text``, which is the part of this one that begins at ``start``."""
        if len(text) == len(self):
            return self
        return _marked(text, _part(self._cuts, start, start + len(text)) if self._cuts else _TEMPLATE)

    def _parts(self, texts: Sequence[str], sep: str | None) -> list[str]:
        """Return ``texts``, which are the parts of this one between separators."""
        parts: list[str] = []
        at = 0
        for text in texts:
            if sep is None:
                at = self.find(text, at)
            parts.append(self._kept(at, text))
            at += len(text) + len(sep or "")
        return parts

    def _three(self, texts: tuple[str, str, str]) -> tuple[str, str, str]:
        head, sep, tail = texts
        behind = len(head) + len(sep)
        return self._kept(0, head), self._kept(len(head), sep), self._kept(behind, tail)

    def _in_case(self, text: str) -> str:
        """Return ``text``, which is this one in another case.

        No letter becomes shorter in another case, so none became longer where the lengths are equal. Where letters
        became longer, it is unknown which did.
        """
        return _marked(text, self._cuts) if not self._cuts or len(text) == len(self) else text


class _Marks:
    """The marks of a text that is put together from parts."""

    def __init__(self) -> None:
        self._cuts: list[int] = []
        self._length = 0

    @property
    def cuts(self) -> _Cuts:
        return tuple(self._cuts)

    def add(self, length: int, cuts: _Cuts) -> None:
        """Add a part of ``length`` characters with these marks."""
        if not length:
            return
        is_content = bool(len(self._cuts) % 2)
        begins_as_content = bool(cuts) and not cuts[0]
        if is_content != begins_as_content:
            self._cuts.append(self._length)
        if len(cuts) > begins_as_content:
            self._cuts.extend([self._length + cut for cut in cuts[begins_as_content:]])
        self._length += length


def _marked(text: str, cuts: _Cuts) -> MarkedText:
    marked = str.__new__(MarkedText, text)
    marked._cuts = cuts
    return marked


def _sum(first: str, second: str) -> MarkedText:
    """Return the sum of two texts; faster than ``joined``, since templates mostly add."""
    text = str.__add__(first, second)
    cuts, more = _cuts_of(first), _cuts_of(second)
    if not first or (not cuts and not more):
        return _marked(text, more)
    if not second:
        return _marked(text, cuts)
    length = len(first)
    begins_as_content = bool(more) and not more[0]
    if len(cuts) % 2 == begins_as_content:
        more = more[1:] if begins_as_content else more
    elif not begins_as_content:
        more = (0, *more)
    return _marked(text, (*cuts, *[length + cut for cut in more]) if more else cuts)


def _cuts_of(text: str) -> _Cuts:
    return text._cuts if isinstance(text, MarkedText) else _CONTENT


def _part(cuts: _Cuts, start: int, stop: int) -> _Cuts:
    """Return the marks of the part from ``start`` to ``stop``."""
    before = bisect_right(cuts, start)
    inside = tuple(cut - start for cut in cuts[before : bisect_left(cuts, stop, before)])
    return (0, *inside) if before % 2 else inside


def _occurrences(text: str, old: str, count: int) -> Iterator[int]:
    """Yield the offsets at which ``str.replace`` replaces ``old``."""
    if not old:
        # Before each character, and at the end.
        most = len(text) + 1
        yield from range(most if count < 0 else min(count, most))
        return
    at = text.find(old)
    while at >= 0 and count:
        yield at
        count -= 1
        at = text.find(old, at + len(old))


def _filled(pattern: MarkedText, values: Any) -> str | None:
    """Return ``pattern % values``, with the marks of the pattern and of values that are written as they are.

    Returns None for patterns that take widths from the values.
    """
    is_mapping = isinstance(values, Mapping) and not isinstance(values, tuple)
    rest = list(values) if isinstance(values, tuple) else [values]
    pieces: list[str] = []
    end = 0
    for conversion in _CONVERSION.finditer(pattern):
        pieces.append(pattern[end : conversion.start()])
        end = conversion.end()
        key, how, kind = conversion["key"], conversion["how"], conversion["kind"]
        if kind == "%":
            pieces.append(pattern[end - 1 : end])
            continue
        if key is not None and is_mapping:
            value = values[key]
        elif rest:
            value = rest.pop(0)
        else:
            return None
        pieces.append(value if kind == "s" and not how and isinstance(value, str) else f"%{how}{kind}" % (value,))
    pieces.append(pattern[end:])
    return joined(pieces)


def by_template(text: str) -> MarkedText:
    """Return ``text`` as what the template wrote."""
    return _marked(text, _TEMPLATE)


def unmarked(text: str) -> str:
    """Return ``text`` without marks, which is faster to search and to cut."""
    return str.__str__(text)


def joined(texts: Iterable[str], separator: str = "") -> MarkedText:
    """Return ``separator.join(texts)``, each part with its own marks."""
    parts = texts if isinstance(texts, list | tuple) else list(texts)
    text = str.join(separator, parts)
    marks = _Marks()
    between, length = _cuts_of(separator), len(separator)
    for index, part in enumerate(parts):
        if index:
            marks.add(length, between)
        marks.add(len(part), _cuts_of(part))
    return _marked(text, marks.cuts)


def is_by_template(text: str, start: int, stop: int) -> bool:
    """Whether the template wrote all characters of ``text`` from ``start`` to ``stop``."""
    cuts = _cuts_of(text)
    before = bisect_right(cuts, start)
    return not before % 2 and (before == len(cuts) or cuts[before] >= stop)


def runs_of(text: str) -> list[int]:
    """Return the lengths of the runs of ``text`` that the template wrote and that it did not, in turns.

    The first is the template's, and may be 0. They add up to the length of the text.
    """
    offsets = (0, *_cuts_of(text), len(text))
    return [stop - start for start, stop in pairwise(offsets)]


def from_runs(text: str, runs: Sequence[int]) -> MarkedText:
    """Return ``text`` with the marks of ``runs_of``."""
    marks = _Marks()
    for index, length in enumerate(runs):
        marks.add(length, _CONTENT if index % 2 else _TEMPLATE)
    return _marked(text, marks.cuts)
