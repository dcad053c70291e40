"""The text of a grammar, with the field of the request that it comes from."""

from __future__ import annotations


class Grammar(str):
    """A grammar for llguidance: Lark, or a list of grammars in JSON.

    param: the field of the request that it comes from, for errors.
    """

    __slots__ = ("param",)

    param: str

    def __new__(cls, text: str, param: str) -> Grammar:
        """Return the grammar ``text``, which comes from the field ``param``."""
        grammar = super().__new__(cls, text)
        grammar.param = param
        return grammar
