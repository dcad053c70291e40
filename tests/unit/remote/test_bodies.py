"""What other servers are asked."""

from __future__ import annotations

import io
import json
import wave
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from modelyard.errors import UnsupportedOperation
from modelyard.protocol.prompts import (
    Audio,
    Chat,
    Image,
    Infill,
    NamedTool,
    Pieces,
    Prompt,
    Sampling,
    Text,
    Tokens,
    Written,
)
from modelyard.protocol.requests import Embed, Rank, Submit
from modelyard.protocol.values import SequenceId
from modelyard.remote.bodies import conversation_key, embedding_request, rank_request, text_request
from modelyard.remote.media import png, wav

ONE = SequenceId(1)
USER = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "now"}}


def body(prompt: Prompt, defaults: Sampling | None = None, **fields: Any) -> dict[str, Any]:
    """The body of a request, without what all have."""
    made = text_request(Submit(ONE, prompt, **fields), "m", defaults or Sampling()).body
    json.dumps(made, allow_nan=False)
    assert (made.pop("model"), made.pop("stream"), made.pop("stream_options")) == ("m", True, {"include_usage": True})
    return made


def chat(*messages: Any, **fields: Any) -> Chat:
    return Chat(messages or (USER,), **fields)


def test_a_plain_request_has_no_fields_that_a_strict_server_does_not_know() -> None:
    assert body(chat()) == {"messages": [USER]}
    assert body(Text("Once")) == {"prompt": "Once"}


def test_sampling_is_the_requests_own_before_the_configured_one() -> None:
    asked = Sampling(temperature=0.5, logit_bias={5: -float("inf")}, text_bias={"no": 3.0}, penalty_window=64)
    sent = body(chat(), Sampling(temperature=1.0, top_k=3), sampling=asked)
    assert sent == {
        "messages": [USER],
        "temperature": 0.5,
        "top_k": 3,
        "repeat_last_n": 64,
        "logit_bias": {"5": -100.0, "no": 3.0},
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 9, "max_answer": 5, "max_context": 7}, {"max_tokens": 5}),
        ({"stop": ("a",), "includes_stop": True}, {"stop": ["a"], "include_stop_str_in_output": True}),
        ({"stop_tokens": (2,), "ignore_eos": True}, {"stop_token_ids": [2], "ignore_eos": True}),
        ({"min_tokens": 3, "bad_words": ("x",)}, {"min_tokens": 3, "bad_words": ["x"]}),
        ({"shows_special": True}, {"skip_special_tokens": False}),
        ({"reasoning_budget": 40}, {"thinking_budget": 40}),
        ({"max_prompt_tokens": 0}, {"truncate_prompt_tokens": -1}),
        ({"logprobs": 0}, {"logprobs": True}),
        ({"logprobs": 4}, {"logprobs": True, "top_logprobs": 4}),
        ({"prediction": "p"}, {"prediction": {"type": "content", "content": "p"}}),
        ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        ({"grammar": {"type": "regex", "value": "a+"}}, {"structured_outputs": {"regex": "a+"}}),
        ({"grammar": {"type": "lark", "value": "start: A"}}, {"grammar": {"type": "lark", "value": "start: A"}}),
    ],
)
def test_what_a_request_sets_is_passed_on(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert body(chat(), **fields) == {"messages": [USER], **expected}


def test_tools_and_how_they_are_chosen() -> None:
    assert body(chat(tools=(TOOL,))) == {"messages": [USER], "tools": [TOOL]}
    assert body(chat(tools=(TOOL,), tool_choice="none"))["tool_choice"] == "none"
    named = chat(tools=(TOOL,), tool_choice=NamedTool("now"), parallel_tool_calls=False)
    assert body(named)["tool_choice"] == {"type": "function", "function": {"name": "now"}}
    assert body(named)["parallel_tool_calls"] is False
    assert text_request(Submit(ONE, named), "m", Sampling()).max_calls == 1


def test_arguments_of_earlier_calls_are_texts() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": {"zone": "UTC"}}}
    sent = body(chat(USER, {"role": "assistant", "content": "", "tool_calls": [call]}))
    assert sent["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"zone": "UTC"}'


def test_reasoning_is_asked_for_in_openais_word_and_the_rest_as_template_variables() -> None:
    assert body(chat(options={"reasoning_effort": "low", "enable_thinking": True})) == {
        "messages": [USER],
        "reasoning_effort": "low",
    }
    assert body(chat(options={"enable_thinking": False}))["chat_template_kwargs"] == {"enable_thinking": False}


def test_an_answer_goes_on_from_the_last_message_only_where_it_is_to() -> None:
    begun = {"role": "assistant", "content": "Well"}
    going_on = body(chat(USER, begun, continues=True))
    assert (going_on["continue_final_message"], going_on["add_generation_prompt"]) == (True, False)
    assert body(chat(USER, begun))["add_generation_prompt"] is True


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (Tokens((1, 2)), {"prompt": [1, 2]}),
        (Pieces(("a", "b")), {"prompt": "ab"}),
        (Pieces((1, 2)), {"prompt": [1, 2]}),
        (Infill("a", "b"), {"prompt": "a", "suffix": "b"}),
    ],
)
def test_prompts_without_a_conversation(prompt: Prompt, expected: dict[str, Any]) -> None:
    assert body(prompt) == expected
    assert body(prompt, echoes=True)["echo"] is True


@pytest.mark.parametrize("prompt", [Pieces(("a", 1)), Infill("a", "b", files=(("f", "x"),)), Written(("a",))])
def test_prompts_that_no_other_server_takes_are_refused(prompt: Prompt) -> None:
    with pytest.raises(UnsupportedOperation, match="another server's"):
        body(prompt)


def test_scores_of_a_prompt_are_refused() -> None:
    with pytest.raises(UnsupportedOperation, match="log-probabilities of a prompt"):
        body(Text("a"), echoes=True, logprobs=1)


def test_vectors_and_scores() -> None:
    asked = embedding_request(Embed(ONE, (Text("a"), Tokens((1, 2)))), "m")
    assert asked.body == {"model": "m", "input": ["a", [1, 2]], "encoding_format": "float"}
    ranked = rank_request(Rank(ONE, "q", ("a", "b"), 50), "m")
    assert ranked.body == {"model": "m", "query": "q", "documents": ["a", "b"], "max_tokens_per_doc": 50}


def test_images_are_the_same_pixels_and_sound_the_same_samples() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    image = Image(5, 3, pixels.tobytes(), detail="low")
    with Picture.open(io.BytesIO(png(image))) as picture:
        assert (np.asarray(picture) == pixels).all()
    samples = np.array([0.0, 0.5, -1.0, 2.0], dtype=np.float32)
    with wave.open(io.BytesIO(wav(Audio(samples.tobytes(), 16_000)))) as clip:
        assert (clip.getframerate(), clip.getnchannels(), clip.getsampwidth()) == (16_000, 1, 2)
        assert np.frombuffer(clip.readframes(9), "<i2").tolist() == [0, 16383, -32767, 32767]
    parts = body(chat({"role": "user", "content": ("Look: ", image)}))["messages"][0]["content"]
    assert parts[0] == {"type": "text", "text": "Look: "}
    assert parts[1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert parts[1]["image_url"]["detail"] == "low"


def test_requests_of_a_conversation_have_one_key() -> None:
    begun = Submit(ONE, chat({"role": "system", "content": "s"}, USER))
    later = Submit(ONE, chat({"role": "system", "content": "s"}, USER, {"role": "assistant", "content": "Hi"}, USER))
    other = Submit(ONE, chat({"role": "system", "content": "t"}, USER))
    salted = Submit(ONE, begun.prompt, cache_salt="key")
    assert conversation_key(begun, "") == conversation_key(later, "") != ""
    assert len({conversation_key(each, "") for each in (begun, other, salted)}) == 3
    assert conversation_key(begun, "mine") == conversation_key(other, "mine") != conversation_key(salted, "mine")
    assert conversation_key(Embed(ONE, (Text("a"),)), "") == ""
