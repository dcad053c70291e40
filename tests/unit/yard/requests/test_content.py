"""Which requests ask the same of a model."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from modelyard.protocol.prompts import Audio, Chat, Image, Infill, NamedTool, Sampling, Text, Tokens, Written
from modelyard.protocol.requests import Embed, Rank, Submit, Tokenize
from modelyard.yard.requests.content import content_of

RED, BLUE = Image(1, 1, b"\xff\x00\x00"), Image(1, 1, b"\x00\x00\xff")
LOUD, QUIET = Audio(b"\x00" * 8, 16_000), Audio(b"\x01" * 8, 16_000)


def chat(*contents, **options):
    return Chat(tuple({"role": "user", "content": content} for content in contents), **options)


PROMPTS = [
    Text("ab"),
    Text("a"),
    Text("\ud800"),
    Tokens((1, 2)),
    Tokens((12,)),
    Infill("a", "b"),
    Infill("ab", ""),
    Written(("a", RED)),
    chat("ab"),
    chat("a", "b"),
    chat(("a", RED)),
    chat(("a", BLUE)),
    chat(("a", LOUD)),
    chat(("a", QUIET)),
    chat("mapping 0"),
    chat({}),
    chat("ab", tool_choice="required"),
    chat("ab", tool_choice=NamedTool("required")),
    chat("ab", options={"enable_thinking": True}),
    chat("ab", tools=({"type": "function"},)),
]


def test_requests_of_other_prompts_models_or_kinds_differ():
    messages = [
        *(Submit(1, prompt) for prompt in PROMPTS),
        Submit(1, Text("ab"), grammar={"type": "regex", "value": "a"}),
        Submit(1, Text("ab"), response_format={"type": "json_object"}),
        Embed(1, (Text("ab"),)),
        Embed(1, (Text("a"), Text("b"))),
        Rank(1, "a", ("b",)),
        Rank(1, "ab", ()),
        Tokenize(1, Text("ab")),
    ]
    contents = [content_of(model, message) for message in messages for model in ("small", "large")]
    assert len(set(contents)) == 2 * len(messages)


@pytest.mark.parametrize("prompt", PROMPTS, ids=repr)
def test_the_same_again_is_the_same(prompt):
    again = replace(prompt, **{field.name: getattr(prompt, field.name) for field in fields(prompt)})
    assert content_of("small", Submit(1, prompt)) == content_of("small", Submit(2, again))


def test_how_an_answer_is_drawn_and_waited_for_does_not_count():
    one = Submit(1, Text("ab"))
    sampling = Sampling(seed=3, temperature=0.5)
    other = Submit(2, Text("ab"), sampling, max_tokens=7, stop=("x",), priority=5, prediction="b", alone=True)
    assert content_of("small", one) == content_of("small", other)
    assert content_of("small", Embed(1, (Text("a"),))) == content_of("small", Embed(2, (Text("a"),), 5, alone=True))


def test_the_order_of_an_objects_keys_does_not_count_and_that_of_messages_does():
    one = Chat(({"role": "user", "content": "a"},))
    other = Chat(({"content": "a", "role": "user"},))
    assert content_of("small", Submit(1, one)) == content_of("small", Submit(1, other))
    assert content_of("small", Submit(1, chat("a", "b"))) != content_of("small", Submit(1, chat("b", "a")))
