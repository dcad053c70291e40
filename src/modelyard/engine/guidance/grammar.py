"""Grammars as llguidance takes them. Pure: whether one can be used is seen where it is compiled.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md and docs/json_schema.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from modelyard.engine.messages import Grammar
from modelyard.errors import InvalidRequest

# A grammar is compiled within seconds, and an error shows a part of it.
LONGEST_GRAMMAR: Final = 1_000_000

# White space between the parts of JSON is free, but bounded: a small model would fill its answer with it.
_WHITE_SPACE: Final = r"[ \n\t]{0,16}"

_ANSWER: Final = "answer"
_FIRST, _SECOND = "first", "second"


def json_schema(schema: Mapping[str, Any], param: str) -> Grammar:
    """JSON that is valid against ``schema``; ``param`` is the field that it came in."""
    hints = schema.get("x-guidance")
    options = {"whitespace_pattern": _WHITE_SPACE, **(hints if isinstance(hints, Mapping) else {})}
    return _grammar({"json_schema": {**schema, "x-guidance": options}}, param)


def json_object(param: str) -> Grammar:
    """Any JSON object."""
    return json_schema({"type": "object"}, param)


def regex(pattern: str, param: str) -> Grammar:
    """Text that ``pattern`` matches as a whole. Rust's dialect, without look-around."""
    escaped = pattern.replace("\\/", "/").replace("/", "\\/")
    return _grammar({"lark_grammar": f"start: /{escaped}/"}, param)


def lark(text: str, param: str) -> Grammar:
    """llguidance's dialect of Lark, which begins with the rule "start"."""
    return _grammar({"lark_grammar": text}, param)


def llguidance(text: str, param: str) -> Grammar:
    """Grammars as llguidance's own JSON, of which the first counts.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        value = json.loads(text)
        grammars = value["grammars"]
        grammars[0].setdefault("name", _ANSWER)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InvalidRequest(
            f"'{param}': It is no llguidance grammar, which is an object with a list 'grammars'. ({error})", param
        ) from error
    return _checked(Grammar(json.dumps({"grammars": grammars}), param))


def after(lead: str, grammar: Grammar) -> Grammar:
    """``grammar`` behind what ``lead``, in Lark, says.

    Args:
        lead: rules beginning with "start", in which @answer stands for ``grammar``.
    """
    grammars = json.loads(grammar.text)["grammars"]
    # Names are the first grammar's own where a client gave it one.
    lead = lead.replace(f"@{_ANSWER}", f"@{grammars[0]['name']}")
    return Grammar(json.dumps({"grammars": [{"lark_grammar": lead}, *grammars]}), grammar.param)


def either(first: str, second: Grammar) -> Grammar:
    """``first``, in Lark, or ``second``."""
    grammars = json.loads(second.text)["grammars"]
    head, *rest = grammars
    start = {"lark_grammar": f"start: @{_FIRST} | @{_SECOND}"}
    parts = [start, {"name": _FIRST, "lark_grammar": first}, {**head, "name": _SECOND}, *rest]
    return Grammar(json.dumps({"grammars": parts}), second.param)


def _grammar(body: dict[str, Any], param: str) -> Grammar:
    return _checked(Grammar(json.dumps({"grammars": [{"name": _ANSWER, **body}]}), param))


def _checked(grammar: Grammar) -> Grammar:
    if len(grammar.text) > LONGEST_GRAMMAR:
        raise InvalidRequest(
            f"'{grammar.param}': The grammar has {len(grammar.text):,} characters; {LONGEST_GRAMMAR:,} are the most.",
            grammar.param,
        )
    return grammar
