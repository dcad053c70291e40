"""When an answer is complete, and what of it is text."""

from __future__ import annotations

from modelyard.engine.output.output import ALL_TOKENS, SequenceOutput

END = 2


def answer(max_tokens: int = 100, stops: tuple[str, ...] = ()) -> SequenceOutput:
    return SequenceOutput(max_tokens=max_tokens, end_tokens=frozenset({END}), stops=stops)


def test_an_end_token_ends_it_and_is_no_text() -> None:
    said = answer()
    assert said.push(7, b"Hi") == "Hi"
    assert said.finish_reason is None
    assert said.push(END, b"<end>") == ""
    assert said.finish_reason == "stop"


def test_the_last_token_allowed_ends_it_with_its_text() -> None:
    said = answer(max_tokens=2)
    said.push(7, b"a")
    assert said.push(7, b"b") == "b"
    assert said.finish_reason == "length"


def test_a_stop_string_ends_it_even_with_the_last_token_allowed() -> None:
    said = answer(max_tokens=2, stops=("STOP",))
    assert said.push(7, b"a ST") == "a "
    assert said.push(7, b"OP b") == ""
    assert said.finish_reason == "stop"


def test_text_held_for_a_stop_string_is_said_at_the_end() -> None:
    by_length, by_token = answer(max_tokens=1, stops=("STOP",)), answer(stops=("STOP",))
    assert by_length.push(7, b"a ST") == "a ST"
    assert by_token.push(7, b"a ST") == "a "
    assert by_token.push(END, b"") == "ST"


def test_half_a_character_at_the_end_is_dropped() -> None:
    said = answer(max_tokens=1)
    assert said.push(7, b"a\xf0\x9f") == "a"
    assert said.finish_reason == "length"


def test_a_stop_string_is_found_across_the_bytes_of_a_split_character() -> None:
    said = answer(stops=("é!",))
    assert said.push(7, b"a\xc3") == "a"
    assert said.push(7, b"\xa9") == ""
    assert said.push(7, b"! b") == ""
    assert said.finish_reason == "stop"


def test_the_end_token_as_the_last_allowed_is_a_stop() -> None:
    said = answer(max_tokens=1)
    assert said.push(END, b"<end>") == ""
    assert said.finish_reason == "stop"


def test_tokens_without_text_count() -> None:
    said = answer(max_tokens=2)
    assert [said.push(7, b""), said.finish_reason, said.push(7, b""), said.finish_reason] == ["", None, "", "length"]


def test_a_stop_string_before_the_least_number_of_tokens_is_text() -> None:
    said = SequenceOutput(max_tokens=9, min_tokens=3, end_tokens=frozenset(), stops=("a",))
    assert said.push(7, b"a") + said.push(7, b"ba") == "aba"
    assert said.finish_reason is None
    assert said.push(7, b"ca") == "c"
    assert said.finish_reason == "stop"


def test_a_stop_string_is_part_of_the_text_where_that_is_asked_for() -> None:
    said = SequenceOutput(max_tokens=9, end_tokens=frozenset(), stops=("STOP",), includes_stop=True)
    assert said.push(7, b"a ST") + said.push(7, b"OP b") == "a STOP"
    assert said.stopped_by == "STOP"


def test_any_token_is_a_visible_one() -> None:
    assert 0 in ALL_TOKENS
    assert 2**31 - 1 in ALL_TOKENS


def test_an_answer_knows_whether_it_has_several_lines() -> None:
    text = answer()
    text.push(7, b"one line")
    assert not text.has_lines
    text.push(7, b"\nand another")
    assert text.has_lines
