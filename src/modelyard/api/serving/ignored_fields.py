"""Finds the parts of a validated body that have no effect, so that no part of a request is ignored without a word.

Every model of a body allows extra fields. An extra field is without effect, unless its model lists it in a class
attribute ``known_extras``: such a field is refused elsewhere, changes nothing, or is passed on to the chat template.
A declared field whose value has no effect is reported by a method ``without_effect`` of its model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel

MAX_FOUND: Final = 256
"""Fields that are reported of one body. A client may send a hundred thousand."""


class _Everything:
    """A container of all names."""

    def __contains__(self, _name: object) -> bool:
        return True


PASSED_ON: Final = _Everything()
"""The ``known_extras`` of a model whose extra fields reach the chat template, or are stored with the answer."""


def ignored_fields(body: object) -> list[str]:
    """Return the paths of the parts of ``body`` that have no effect, such as ``messages[0].content[1].note``.

    Fields near the root come first. A field that is null says nothing, and is not reported.
    """
    found: list[str] = []
    queue = deque([("", body)])
    while queue and len(found) < MAX_FOUND:
        path, part = queue.popleft()
        if isinstance(part, BaseModel):
            found.extend(_without_effect(part, path))
            queue.extend(_parts(part, path))
    return found[:MAX_FOUND]


def _without_effect(part: BaseModel, path: str) -> Iterator[str]:
    known: Any = getattr(type(part), "known_extras", ())
    for name, value in (part.model_extra or {}).items():
        if value is not None and name not in known:
            yield path + name
    report = getattr(part, "without_effect", None)
    if report is not None:
        for name in report():
            yield path + name


def _parts(part: BaseModel, path: str) -> Iterator[tuple[str, BaseModel]]:
    """Yield the models in the fields of ``part`` and in its lists, each with the beginning of its fields' paths."""
    fields = type(part).model_fields
    for name, value in part.__dict__.items():
        if isinstance(value, BaseModel):
            yield f"{path}{fields[name].alias or name}.", value
        # The items of a list are models, or none of them is.
        elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
            for index, item in enumerate(value):
                yield f"{path}{fields[name].alias or name}[{index}].", item
