"""Converts grammars of llama.cpp (GBNF) into llguidance's dialect of Lark.

Source: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md. llguidance converts all but what is here:
code points by their number, and a dot that matches line breaks, too.
"""

from __future__ import annotations

from typing import Final

from llguidance.gbnf_to_lark import GbnfToLarkError, GrammarParser, Position, RegexNode, resolve

# The conversion takes 10 ms for 10,000 characters; the grammars that come with llama.cpp have up to 4,000.
MAX_LENGTH: Final = 100_000

_DIGITS: Final = {"x": 2, "u": 4, "U": 8}
_SPECIAL: Final = '"\\[]^-/'


class InvalidGbnf(ValueError):
    """A text is no grammar; the message holds the reason."""


class _Parser(GrammarParser):
    """Reads code points that are written by their number as the characters themselves."""

    def _parse_char(self, pos: Position) -> tuple[str, Position]:
        digits = _DIGITS.get(pos.peek(2)[1:], 0) if pos.current() == "\\" else 0
        if not digits:
            return super()._parse_char(pos)
        number = pos.peek(2 + digits)[2:]
        try:
            character = chr(int(number, 16))
        except (ValueError, OverflowError):
            raise GbnfToLarkError(pos, f"no code point has the number '{number}'") from None
        if not character.isprintable():
            return f"\\x{ord(character):02x}" if ord(character) < 256 else character, pos.advance(2 + digits)
        return "\\" + character if character in _SPECIAL else character, pos.advance(2 + digits)


def lark_of(gbnf: str) -> str:
    """Return a grammar of llama.cpp as Lark; its root becomes the rule ``start``.

    Raises:
        InvalidGbnf: it is none, or too long.
    """
    if len(gbnf) > MAX_LENGTH:
        raise InvalidGbnf(f"it has {len(gbnf):,} characters; {MAX_LENGTH:,} are the most")
    try:
        rules = _Parser().parse(gbnf)
        resolve(rules)
    except RecursionError:
        raise InvalidGbnf("it is nested too deeply") from None
    except Exception as failure:  # llguidance raises Exception itself
        raise InvalidGbnf(str(failure)) from failure
    for rule in rules.values():
        rule.comment = ""
        _let_dots_match_lines(rule)
    return "\n".join(map(str, rules.values())) + "\n"


def _let_dots_match_lines(node: object) -> None:
    nodes = [node]
    while nodes:
        each = nodes.pop()
        if isinstance(each, RegexNode) and each.rx == ".":
            each.rx = "(?s:.)"
        nodes += each.children()  # type: ignore[attr-defined]
