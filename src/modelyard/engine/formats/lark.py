"""Builds grammars in llguidance's dialect of Lark.

A marker is one control token in the vocabulary of a model that was trained on it, and plain text in others. A grammar
must refer to a control token by its id, because text never matches one.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md and docs/json_schema.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from modelyard.engine.formats.closed_schema import closed
from modelyard.engine.formats.enforceable import enforceable
from modelyard.engine.formats.schema import Tool

# Returns the id of the control token with exactly this text; None if there is none. User-defined tokens of a
# vocabulary, such as Qwen's <tool_call>, are text.
TokenId = Callable[[str], int | None]

# White space between the parts of JSON is limited, because a small model could fill its answer with it.
_WHITE_SPACE = r"[ \n\t]{0,16}"


class Lark:
    """Collects the rules of one grammar, and makes the expressions in them.

    Args:
        token_id: finds control tokens by their text.
        markers: all texts that may be control tokens.

    Attributes:
        dropped: parts of schemas that the grammar does not hold.
        refused: such parts of schemas that had to be enforced as a whole.
    """

    def __init__(self, token_id: TokenId, markers: Iterable[str]) -> None:
        self._tokens = {marker: found for marker in markers if (found := token_id(marker)) is not None}
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._rules: list[str] = []
        self.dropped: dict[str, None] = {}
        self.refused: dict[str, None] = {}

    def text(self, text: str) -> str:
        """Return the expression of exactly this text, with markers as control tokens if they are some."""
        parts: list[str] = []
        at = 0
        for found in self._split.finditer(text) if self._split else ():
            parts += [_literal(text[at : found.start()]), f"<[{self._tokens[found.group()]}]>"]
            at = found.end()
        parts.append(_literal(text[at:]))
        return " ".join(filter(None, parts))

    def is_token(self, marker: str) -> bool:
        """Whether a marker is a control token."""
        return marker in self._tokens

    def has_token(self, text: str) -> bool:
        """Whether a control token is in ``text``."""
        return self._split is not None and self._split.search(text) is not None

    def rule(self, body: str, options: str = "") -> str:
        """Add a rule, and return its name."""
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}{options}: {body}")
        return name

    def any_text(self) -> str:
        """Return the expression of any text without control tokens."""
        return self.rule(r"/(.|\n)*/")

    def text_until(self, end: str) -> str:
        """Return the expression of any text up to and including the first ``end``."""
        token = self._split.search(end) if self._split else None
        if token is None:
            return self.rule(r"/(.|\n)*/", f"[suffix={_literal(end)}]")
        # The control token spelt out as plain text is excluded, because the parser would take it for the end. Text
        # before the token belongs to the terminal, which is as long as it can be.
        before = _pattern(end[: token.start()])
        terminal = f"T{len(self._rules)}"
        self._rules.append(rf"{terminal}: /(?s:.*){before}/ & ~/(?s:.*){_pattern(end)}(?s:.*)/")
        return f"{terminal} {self.text(end[token.start() :])}"

    def json(self, schema: Mapping[str, Any], *, strict: bool) -> str:
        """Return the expression of JSON of ``schema``. strict: whether it must be enforced as a whole."""
        found = enforceable(closed(dict(schema), "schema"))
        (self.refused if strict else self.dropped).update(dict.fromkeys(found.dropped))
        guidance = {"whitespace_pattern": _WHITE_SPACE, "coerce_one_of": True, "lenient": not strict}
        return self.rule("%json " + json.dumps({**found.schema, "x-guidance": guidance}))

    def arguments(self, tool: Tool) -> str:
        """Return the expression of the arguments of ``tool``."""
        return self.json(as_object(tool.parameters), strict=tool.strict)

    def grammar(self, start: str) -> str:
        """Return the whole grammar, which begins with the expression ``start``."""
        return "\n".join(["%llguidance {}", f"start: {start}", *self._rules, ""])


def as_object(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema of arguments with the type "object" if it has no type of its own."""
    if "type" in schema or {"anyOf", "oneOf", "allOf", "$ref"} & schema.keys():
        return schema
    return {**schema, "type": "object"}


def _pattern(text: str) -> str:
    """Return a regular expression that matches exactly ``text``, without its delimiters."""
    return re.escape(text).replace("/", r"\/").replace("\\\n", r"\n")


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""
