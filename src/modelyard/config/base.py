"""Base class and common types of the tables of a configuration."""

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

# A tuple, because a configuration is immutable; TOML gives a list.
Items = Annotated[tuple[_Item, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]


class Table(BaseModel):
    """Base of all tables: unknown keys are refused, values are not converted, and tables are immutable."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        # No request could match a name with a blank around it.
        str_strip_whitespace=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )


Scope = Literal["inference", "read", "admin"]

PrefixSharing = Literal["key", "group", "all"]
