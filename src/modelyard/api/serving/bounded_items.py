"""Lists and mappings of a request's body, bounded so that refusing a hostile one costs neither time nor memory.

pydantic makes an error for every invalid item, unless a list fails fast. A mapping cannot fail fast, so its length is
checked before its items. pydantic holds the interpreter's lock during validation, except in calls of Python functions:
``INTERRUPTIBLE`` items let other threads run between them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

MAX_MESSAGES: Final = 10_000
"""Messages of a conversation. Validating this many takes a tenth of a second."""

MAX_PARTS: Final = 1024
"""Parts of one message, and blocks of one Anthropic message."""

MAX_CALLS: Final = 512
"""Tool calls in one message."""

MAX_LABELS: Final = 256
"""Items of a list, and pairs of a mapping, without effect on the answer."""


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


def at_most(limit: int) -> BeforeValidator:
    """Return a validator that refuses mappings of more than ``limit`` pairs before their items are validated."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > limit:
            raise PydanticCustomError(
                "too_long",
                "Dictionary should have at most {limit} items, not {length}",
                {"limit": limit, "length": len(value)},
            )
        return value

    return BeforeValidator(check)
