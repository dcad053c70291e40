"""The text of a grammar, with the field of the request that it comes from."""

from __future__ import annotations


class Grammar(str):
    """A grammar for llguidance: Lark, or a list of grammars in JSON.

    Attributes:
        param: the field of the request that it comes from, for errors.
        dropped: the parts of that field that it does not hold, such as ``pattern (?=...)``.
        closes: whether an answer that nears its limit of tokens is led to an end of the grammar. Calls are not: a call
            that was cut must not look like one that the model has finished.
    """

    __slots__ = ("closes", "dropped", "param")

    param: str
    dropped: tuple[str, ...]
    closes: bool

    def __new__(cls, text: str, param: str, dropped: tuple[str, ...] = (), *, closes: bool = True) -> Grammar:
        """Return the grammar ``text``, which comes from the field ``param``."""
        grammar = super().__new__(cls, text)
        grammar.param, grammar.dropped, grammar.closes = param, dropped, closes
        return grammar
