"""llama.cpp's grammars hold for llguidance, too."""

from __future__ import annotations

import pytest
from llguidance import LLMatcher, LLTokenizer

from modelyard.engine.chat.gbnf import MAX_LENGTH, InvalidGbnf, lark_of

BYTES = LLTokenizer("byte")
JSON = r"""root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


def accepts(gbnf: str, text: str) -> bool:
    matcher = LLMatcher(BYTES, lark_of(gbnf), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = list(text.encode())
    is_whole = matcher.validate_tokens(tokens) == len(tokens)
    return is_whole and matcher.consume_tokens(tokens) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("gbnf", "right", "wrong"),
    [
        ('root ::= "yes" | "no"', "no", "maybe"),
        (JSON, '{"a": [1, -2.5e3, "x\\n"], "b": {}}', '{"a"}'),
        ('root ::= item{2,3}\nitem ::= "- " [^\\r\\n]+ "\\n"', "- a\n- b\n", "- a\n"),
        ('root ::= expr\nexpr ::= num-lit | "(" expr "+" expr ")"\nnum-lit ::= [0-9]+', "(1+(22+3))", "(1+"),
        (r'root ::= [\u00e9\x41-\x43]+ "\u00e9\x22"', 'Aéé"', 'Dé"'),
        ('root ::= "a" . "b"', "a\nb", "ab"),
        (r'root ::= "a/b" [/\]\[]', "a/b]", "a/ba"),
    ],
)
def test_a_grammar_accepts_what_llama_cpp_says(gbnf: str, right: str, wrong: str) -> None:
    assert accepts(gbnf, right)
    assert not accepts(gbnf, wrong)


@pytest.mark.parametrize(
    ("gbnf", "reason"),
    [
        ("", "root"),
        ('start ::= "a"', "root"),
        ("root = x", "Expected ::="),
        ("root ::= missing", "missing"),
        ('root ::= "a', "end of input"),
        (r"root ::= [\uZZZZ]", "ZZZZ"),
        ("root ::= " + "(" * 20_000, "nested"),
        ("#" * (MAX_LENGTH + 1), "characters"),
    ],
)
def test_a_text_that_is_no_grammar_is_refused_with_the_reason(gbnf: str, reason: str) -> None:
    with pytest.raises(InvalidGbnf, match=reason):
        lark_of(gbnf)
