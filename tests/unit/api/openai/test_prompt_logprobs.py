"""Log-probabilities in the shapes of vLLM, and the choice of the best answers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from modelyard.api.openai.message import logprobs_object
from modelyard.api.openai.prompt_logprobs import best_of, mean_logprob, prompt_scores
from modelyard.api.openai.schema import ChatCompletionRequest, CompletionRequest, ScoreFields
from modelyard.errors import InvalidRequest
from modelyard.protocol.values import TokenLogprob
from modelyard.yard.requests.token_stream import TokenStream

FIRST = TokenLogprob(b"a", math.nan, (), 4)
SECOND = TokenLogprob(b"c", -3.0, ((b"b", -0.5), (b"d", -1.0)), 6, (5, 7), rank=9)


def completion(**fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"prompt": "Hello", **fields})


def test_a_place_of_the_prompt_has_its_own_token_and_the_likeliest() -> None:
    generation = TokenStream("smol")
    generation.prompt_logprobs = (FIRST, SECOND)
    assert prompt_scores(ScoreFields(prompt_logprobs=2), generation) == {
        "prompt_logprobs": [
            None,
            {
                "5": {"logprob": -0.5, "rank": 1, "decoded_token": "b"},
                "7": {"logprob": -1.0, "rank": 2, "decoded_token": "d"},
                "6": {"logprob": -3.0, "rank": 9, "decoded_token": "c"},
            },
        ]
    }
    assert prompt_scores(ScoreFields(), generation) == {}


def test_tokens_are_named_by_id_where_that_is_asked_for() -> None:
    answer = TokenLogprob(b"c", -math.inf, ((b"b", -0.5),), 6, (5,))
    (named,) = logprobs_object([answer], as_ids=True)["content"]
    assert (named["token"], named["logprob"], named["bytes"]) == ("token_id:6", -9999.0, [99])
    assert [each["token"] for each in named["top_logprobs"]] == ["token_id:5"]
    assert logprobs_object([answer])["content"][0]["token"] == "c"


def test_the_tokens_of_an_echo_do_not_count_for_an_answer() -> None:
    assert mean_logprob([FIRST, SECOND, TokenLogprob(b"x", -1.0, (), 8), TokenLogprob(b"y", -2.0, (), 9)]) == -1.5
    assert mean_logprob([FIRST, SECOND]) == 0.0


def test_the_best_answers_to_each_prompt_come_first() -> None:
    assert best_of([-3.0, -1.0, -2.0, -5.0, -6.0, -4.0], prompts=2, choices=2) == [1, 2, 5, 3]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 3, "stream": True}, "best_of"),
        ({"best_of": 1000}, "best_of"),
        ({"prompt": ["a", "b"], "best_of": 100}, "prompt"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    ],
)
def test_what_cannot_be_returned_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        completion(**fields).checked()
    assert refused.value.param == param


def test_fields_of_vllm_and_llama_cpp_reach_the_engine() -> None:
    fields = {
        "allowed_token_ids": [1, 2],
        "bad_words": ["no"],
        "truncate_prompt_tokens": -1,
        "t_max_predict_ms": 1500,
        "return_progress": True,
        "stream": True,
    }
    chat = ChatCompletionRequest.model_validate({"messages": [{"role": "user", "content": "Hi"}], **fields})
    for request in (chat.checked(), completion(**fields).checked()[0]):
        assert (request.allowed_tokens, request.bad_words, request.max_prompt_tokens) == ((1, 2), ("no",), 0)
        assert (request.max_predict_s, request.reports_progress) == (1.5, True)
    unset = completion(t_max_predict_ms=-1, return_progress=True).checked()[0]
    assert (unset.max_predict_s, unset.reports_progress, unset.max_prompt_tokens) == (None, False, None)
