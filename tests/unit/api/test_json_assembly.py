"""A long body, which is parsed by fragments, is read and refused as orjson does it with the whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelyard.api.serving.json_assembly import parse_long
from modelyard.api.serving.json_body import parse_json
from modelyard.api.serving.json_fragments import MAX_NUMBER_BYTES, PIECE_BYTES, fragments

texts = st.text(st.sampled_from('aé€😀\\"/u{}[]:,\n\0'), max_size=40)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | numbers | texts,
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(texts, inner, max_size=6),
    max_leaves=25,
)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Documents in which keys are repeated, and characters and whitespace are written in all ways."""
    dice = Random(draw(st.integers(0, 999)))

    def written(value: Any) -> str:
        gap = dice.choice(["", "", " ", "\n\t ", " " * 50])
        match value:
            case list():
                return f"[{f'{gap},'.join(map(written, value))}{gap}]"
            case dict():
                items = [*value.items()]
                items += dice.sample(items, dice.randrange(len(items) + 1))
                fields = (f"{written(key)}{gap}:{gap}{written(each)}" for key, each in items)
                return f"{gap}{{{f',{gap}'.join(fields)}{gap}}}"
            case _:
                return json.dumps(value, ensure_ascii=dice.random() < 0.5)

    return written(draw(values)).encode()


def in_order(value: Any) -> str:
    """Equal for values that are equal with their keys in the same order."""
    return repr(value)


def outcome(parse: Callable[..., Any], *arguments: Any) -> tuple[str, int | None]:
    """What a document is; or why it is none, and where."""
    try:
        return in_order(parse(*arguments)), None
    except json.JSONDecodeError as error:
        return error.msg, error.pos


@given(documents(), st.integers(1, 60), st.integers(2, 40))
@example(b'{"a":1,"b":[2],"a":[1,2,3,4,5,6],"c":{"":{"a":[]}},"a":{"a":1,"b":2}}', 4, 3)
@example(b'{"a":{"x":[1,2]},"b":{"x":[3]},"a":{"x":[3,4,5,6],"x":[7,8,9]}}', 1, 2)
@example(b'"' + b"\\ud83d\\ude00" * 20 + b'"', 1, 2)
def test_a_document_is_read_as_it_is_whole(document: bytes, max_bytes: int, piece_bytes: int) -> None:
    assert in_order(parse_long(document, max_bytes, piece_bytes)) == in_order(orjson.loads(document))


@given(documents(), st.data(), st.integers(1, 60), st.integers(2, 40))
def test_a_document_with_a_fault_is_refused(
    document: bytes, data: st.DataObject, max_bytes: int, piece_bytes: int
) -> None:
    at = data.draw(st.integers(0, len(document)))
    until = at + data.draw(st.integers(0, 3))
    marks = st.sampled_from([bytes([mark]) for mark in b'[]{},:"\\0 '])
    document = document[:at] + data.draw(st.binary(max_size=2) | marks) + document[until:]
    theirs, their_place = outcome(orjson.loads, document)
    ours, our_place = outcome(parse_long, document, max_bytes, piece_bytes)
    # Of several faults either may tell of another one.
    if their_place is None or our_place is None:
        assert (ours, our_place) == (theirs, their_place)
    else:
        assert 0 <= our_place <= len(document)


@pytest.mark.parametrize(
    "document",
    [
        b'["' + b"a" * 10_000 + '😀é"]'.encode(),
        b'{"' + b"\\u00e9" * 2000 + b'":"' + b"\\\\" * 3001 + b'"}',
        b"[" * 800 + b"]" * 800,
        b'{"a":[' * 300 + b"1,2" + b"]}" * 300,
        b'{"a":' * 800 + b"[1, 2, 3]" + b"}" * 800,
        b"[" + b",".join(b'{"key":[%d]}' % each for each in range(3000)) + b"]",
        b"{" + b",".join(b'"%d":1' % (each % 1000) for each in range(3000)) + b"}",
        b"[1," + b" " * 20_000 + b"2 " + b" " * 20_000 + b"]" + b" " * 20_000,
        b"[1 " + b" " * 20_000 + b"2]",
        b"[" * 1025 + b"]" * 1025,
        b"[1]]" * 1000,
        b"[1}" * 1000,
        b'"' + b"a" * 10_000,
        b'"' + b"a" * 10_000 + b"\\",
        b'["' + b"a" * 10_000 + b'\n"]',
        b'{"a" "' + b"a" * 10_000 + b'":1}',
        b'["' + b"a" * 10_000 + b'":1]',
        b'"' + b"a" * 10_000 + b'":1',
        b'{"a":1,"' + b"a" * 10_000 + b'"}',
        b'["' + b"a" * 10_000 + b'"1]',
        b"[1," + b" " * 10_000 + b"]",
        b"",
    ],
    ids=range(22),
)
def test_documents_that_are_hard_to_cut_are_read_and_refused_as_orjson_does(document: bytes) -> None:
    assert outcome(parse_long, document, 200, 100)[0] == outcome(orjson.loads, document)[0]


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ('["é", 1, x]', 9),
        ('{"a": "é😀", "b" 2}', 16),
        ('["ééééééééééééé\n"]', 15),
        ("[1, 2, 3, 4]]", 12),
        ('{"aaaaaaaaaaaa": ', 17),
    ],
)
def test_a_fault_is_told_with_its_place_in_characters(document: str, place: int) -> None:
    assert outcome(parse_long, document.encode(), 4, 3)[1] == place


@pytest.mark.parametrize("unit", [b'"ab"', b"1.5", b'{"k":[1]}', b'"' + b"a" * 3000 + b'"', b"[[[[[[[[]]]]]]]]"])
def test_no_fragment_is_much_longer_than_it_may_be(unit: bytes) -> None:
    document = b"[" + b",".join([unit] * 3000) + b"]"
    cut = list(fragments(document, 1000, 200))
    assert len(cut) > 10
    assert max(len(fragment.source) for fragment in cut) <= 1000 + 2 * 200


def test_objects_nested_under_long_keys_are_cut_although_they_have_no_commas() -> None:
    document = (b'{"' + b"a" * 90 + b'":') * 1000 + b"1" + b"}" * 1000
    assert max(len(fragment.source) for fragment in fragments(document, 1000, 100)) < 2400


def test_a_number_that_is_too_long_to_be_parsed_in_one_call_is_refused() -> None:
    with pytest.raises(json.JSONDecodeError, match="a number of more than 131072 bytes"):
        parse_long(b"[0." + b"1" * 4 * MAX_NUMBER_BYTES + b"]")


def test_halves_of_characters_are_replaced_in_a_long_text_too() -> None:
    text = b"a" * (2 * PIECE_BYTES - 3) + b"\\ud800" + b"b" * (4 * PIECE_BYTES) + b"\\udc00\xed\xa0\x80"
    read = parse_json(b'["%b"]' % text)
    assert read == ["a" * (2 * PIECE_BYTES - 3) + "\ufffd" + "b" * (4 * PIECE_BYTES) + "\ufffd\ufffd"]


def test_a_document_may_be_as_deep_as_orjson_takes() -> None:
    value = parse_long(b"[1," * 1024 + b"2" + b"]" * 1024, 200, 100)
    for _ in range(1023):
        assert value[0] == 1
        value = value[1]
    assert value == [1, 2]
