"""What the tables of a configuration are made of."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)

_Item = TypeVar("_Item")

Text = Annotated[str, Field(min_length=1)]

# Held as a tuple, because nothing changes after the load; TOML gives a list.
Items = Annotated[tuple[_Item, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]


class Table(BaseModel):
    """What all tables share: unknown keys are refused, types are not guessed, nothing changes after the load."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        # A blank around a name is never meant: no request could match it.
        str_strip_whitespace=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )


Scope = Literal["inference", "read", "admin"]

PrefixSharing = Literal["key", "group", "all"]
