"""Lists and mappings of a request's body, bounded so that a hostile one costs neither time nor memory to refuse.

pydantic makes an error for every item that is wrong, unless a list fails fast; a mapping cannot, and so its length is
checked before its items are. It holds the interpreter's lock while it checks, but for calls of Python functions:
``INTERRUPTIBLE`` items let other threads run between them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

MAX_MESSAGES: Final = 10_000
"""Messages of a conversation. To look at so many takes a tenth of a second."""

MAX_PARTS: Final = 1024
"""Parts of one message, and blocks of one of Anthropic's."""

MAX_CALLS: Final = 512
"""Calls of tools in one message."""

MAX_LABELS: Final = 256
"""Items of a list, and pairs of a mapping, that have no effect on the answer."""


def _let_others_run(value: Any) -> Any:
    return value


INTERRUPTIBLE: Final = BeforeValidator(_let_others_run)

_Item = TypeVar("_Item")

Items = Annotated[list[Annotated[_Item, INTERRUPTIBLE]], Field(max_length=MAX_MESSAGES, fail_fast=True)]
Messages = Annotated[
    list[Annotated[_Item, INTERRUPTIBLE]], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
]
Parts = Annotated[list[_Item], Field(max_length=MAX_PARTS, fail_fast=True)]
Calls = Annotated[list[_Item], Field(max_length=MAX_CALLS, fail_fast=True)]
Labels = Annotated[list[_Item], Field(max_length=MAX_LABELS, fail_fast=True)]


def at_most(most: int) -> BeforeValidator:
    """Refuse mappings of more than ``most`` pairs before their items are checked."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > most:
            raise PydanticCustomError(
                "too_long",
                "Dictionary should have at most {most} items, not {length}",
                {"most": most, "length": len(value)},
            )
        return value

    return BeforeValidator(check)
