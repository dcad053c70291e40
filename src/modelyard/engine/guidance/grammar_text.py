"""The text of a grammar, and where it comes from."""

from __future__ import annotations


class Grammar(str):
    """A grammar for llguidance: Lark, or a list of grammars in JSON.

    param is the field of the request that it comes from, for errors.
    """

    __slots__ = ("param",)

    param: str

    def __new__(cls, text: str, param: str) -> Grammar:
        """A grammar of this text."""
        made = super().__new__(cls, text)
        made.param = param
        return made
