"""What all answers share: pydantic models that can also be read like dicts, with a short ``repr``."""

from __future__ import annotations

from collections.abc import ItemsView, KeysView, ValuesView
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from modelyard.system.printable import shortened

MAX_SHOWN_CHARS = 80
"""Characters of a text that a ``repr`` shows."""


class Answer(BaseModel):
    """A part of an answer, with OpenAI's names.

    Its fields are attributes and subscripts: ``answer.choices[0]`` is ``answer["choices"][0]``. ``to_dict()`` is what
    the HTTP API sends, which ``json.dumps`` takes; ``model_dump()`` has all fields, also those without a value.
    """

    # "model" is a field, and the names of pydantic's own methods begin with it.
    model_config = ConfigDict(protected_namespaces=())

    def to_dict(self, *, mode: Literal["json", "python"] = "json", exclude_none: bool = False) -> dict[str, Any]:
        """Return the answer as the HTTP API sends it, without fields that it leaves out.

        Args:
            mode: "json": values that ``json.dumps`` takes.
            exclude_none: whether to leave out fields that are null.
        """
        return self.model_dump(mode=mode, exclude_unset=True, exclude_none=exclude_none)

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the answer as JSON text; see ``to_dict``."""
        return self.model_dump_json(indent=indent, exclude_unset=True)

    def __getitem__(self, key: str) -> Any:
        if key in self:
            return getattr(self, key)
        matches = get_close_matches(str(key), self.keys(), n=1)
        hint = f"Did you mean '{matches[0]}'?" if matches else f"It has {', '.join(self.keys())}."
        raise KeyError(f"{type(self).__name__} has no field {key!r}. {hint}")

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __str__(self) -> str:
        return repr(self)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a field; ``default`` where there is no such field, or it has no value."""
        value = getattr(self, key) if key in self else None
        return default if value is None else value

    def keys(self) -> KeysView[str]:
        """Return the names of the fields."""
        return _names(type(self))

    def values(self) -> ValuesView[Any]:
        """Return the values of the fields."""
        return {name: getattr(self, name) for name in self.keys()}.values()

    def items(self) -> ItemsView[str, Any]:
        """Return the fields, each as its name and its value."""
        return {name: getattr(self, name) for name in self.keys()}.items()


@cache
def _names(kind: type[Answer]) -> KeysView[str]:
    return dict.fromkeys((*kind.model_fields, *kind.model_computed_fields)).keys()


def in_repr(text: str | None) -> str | None:
    """Return ``text`` as a ``repr`` shows it: cut to ``MAX_SHOWN_CHARS``."""
    return None if text is None else shortened(text, MAX_SHOWN_CHARS)
