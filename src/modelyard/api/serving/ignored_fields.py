"""Finds the parts of a validated body that have no effect, so that no part of a request is ignored without a word.

Every model of a body allows extra fields. An extra field is without effect, unless its model lists it in a class
attribute ``known_extras``: such a field is refused elsewhere, changes nothing, or is passed on to the chat template.
A declared field whose value has no effect is reported by a method ``without_effect`` of its model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Hashable, Iterable
from functools import cache
from typing import Any, Final, NamedTuple, get_args

from pydantic import BaseModel
from starlette.types import Scope

from modelyard.api.request_context import RequestContext

MAX_FOUND: Final = 256
"""Fields that are reported of one body. A client may send a hundred thousand."""


class _Everything:
    """A container of all names."""

    def __contains__(self, _name: object) -> bool:
        return True


PASSED_ON: Final = _Everything()
"""The ``known_extras`` of a model whose extra fields reach the chat template, or are stored with the answer."""


class _Kind(NamedTuple):
    """What is known of a class of models. Attributes of pydantic's classes are too slow to look up for each instance.

    Attributes:
        known: names of extra fields that are not reported.
        report: ``without_effect`` of the class.
        parts: fields that may hold models, each with its name in a body.
    """

    known: Container[str]
    report: Callable[[Any], Iterable[str]] | None
    parts: tuple[tuple[str, str], ...]


@cache
def _kind_of(kind: Hashable) -> _Kind | None:
    """Return what is known of a class; None if it is no model."""
    if not isinstance(kind, type) or not issubclass(kind, BaseModel):
        return None
    parts = ((name, field.alias or name) for name, field in kind.model_fields.items() if _has_models(field.annotation))
    return _Kind(getattr(kind, "known_extras", ()), getattr(kind, "without_effect", None), tuple(parts))


def _has_models(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(map(_has_models, get_args(annotation)))


def ignored_fields(body: object) -> list[str]:
    """Return the paths of the parts of ``body`` that have no effect, such as ``messages[0].content[1].note``.

    Fields near the root come first. A field that is null says nothing, and is not reported.
    """
    found: list[str] = []
    queue = deque([("", body)])
    while queue and len(found) < MAX_FOUND:
        path, part = queue.popleft()
        part_type: Any = type(part)
        kind = _kind_of(part_type)
        if kind is None:
            continue
        extra = getattr(part, "__pydantic_extra__", None)
        if extra:
            found.extend(path + name for name, value in extra.items() if value is not None and name not in kind.known)
        if kind.report is not None:
            found.extend(path + name for name in kind.report(part))
        for name, label in kind.parts:
            value = part.__dict__[name]
            if value is None or type(value) is str:
                continue
            if type(value) is not list:
                queue.append((f"{path}{label}.", value))
            # The items of a list are models, or none of them is.
            elif value and isinstance(value[0], BaseModel):
                queue.extend((f"{path}{label}[{index}].", item) for index, item in enumerate(value))
    return found[:MAX_FOUND]


def report_ignored(scope: Scope, body: object) -> None:
    """List the parts of ``body`` that have no effect in the context of its request.

    Raises:
        InvalidRequest: as ``RequestContext.ignore``.
    """
    if found := ignored_fields(body):
        RequestContext.of(scope).ignore(found)
