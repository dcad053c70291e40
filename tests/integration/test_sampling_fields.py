"""Fields of sampling and of the end of an answer do what their names say, on real weights."""

from __future__ import annotations

from typing import Any

import pytest

from support.server import RunningServer

PROMPT = "One, two, three, four, five, six,"


def complete(server: RunningServer, **fields: Any) -> dict[str, Any]:
    body = {"model": "smollm2", "prompt": PROMPT, "max_tokens": 8, "temperature": 0, **fields}
    answer = server.post("/v1/completions", body)
    assert answer.status_code == 200, answer.text
    assert "x-modelyard-ignored" not in answer.headers
    return {**answer.json(), **answer.json()["choices"][0]}


def tokens(server: RunningServer, text: str) -> list[int]:
    found: list[int] = server.post("/tokenize", {"model": "smollm2", "content": text}).json()["tokens"]
    return found


def test_an_echoed_prompt_has_the_probabilities_that_its_tokens_had_as_an_answer(server: RunningServer) -> None:
    answer = complete(server, logprobs=2)
    whole = PROMPT + answer["text"]
    echoed = complete(server, prompt=whole, echo=True, logprobs=2, max_tokens=0)
    scores = echoed["logprobs"]
    assert (echoed["text"], echoed["finish_reason"], echoed["usage"]["completion_tokens"]) == (whole, "length", 0)
    assert "".join(scores["tokens"]) == whole
    assert scores["token_logprobs"][0] is scores["top_logprobs"][0] is None
    count = len(answer["logprobs"]["tokens"])
    assert scores["tokens"][-count:] == answer["logprobs"]["tokens"]
    # Tokens of a prompt are computed together, and those of an answer one by one: the arithmetic differs a little.
    assert scores["token_logprobs"][-count:] == pytest.approx(answer["logprobs"]["token_logprobs"], abs=0.3)
    assert scores["text_offset"][-count] == len(PROMPT)


def test_an_echo_with_an_answer_has_the_probabilities_of_both(server: RunningServer) -> None:
    echoed = complete(server, echo=True, logprobs=0, max_tokens=2)
    assert echoed["text"].startswith(PROMPT)
    assert "".join(echoed["logprobs"]["tokens"]) == echoed["text"]
    assert len(echoed["logprobs"]["tokens"]) == echoed["usage"]["total_tokens"]
    streamed = server.post(
        "/v1/completions",
        {"model": "smollm2", "prompt": PROMPT, "echo": True, "logprobs": 0, "max_tokens": 2, "stream": True},
    )
    assert streamed.text.count('"tokens":["One"') == 1


def test_an_answer_of_no_tokens_is_empty(server: RunningServer) -> None:
    empty = complete(server, max_tokens=0)
    assert (empty["text"], empty["finish_reason"], empty["usage"]["completion_tokens"]) == ("", "length", 0)


def test_the_bias_of_a_text_is_that_of_its_tokens(server: RunningServer) -> None:
    said = complete(server)["text"]
    assert said.startswith(" seven")
    (token,) = tokens(server, " seven")
    by_id = complete(server, logit_bias={str(token): -100})["text"]
    assert not by_id.startswith(" seven")
    assert complete(server, logit_bias={" seven": -100})["text"] == by_id
    assert complete(server, logit_bias=[[" seven", False]])["text"] == by_id
    assert complete(server, logit_bias=[[token, False]])["text"] == by_id


def test_an_answer_ends_at_a_token_and_may_include_its_stop(server: RunningServer) -> None:
    (token,) = tokens(server, " seven")
    ended = complete(server, stop_token_ids=[token])
    assert (ended["text"], ended["finish_reason"]) == ("", "stop")
    assert complete(server, stop=[" seven"], include_stop_str_in_output=True)["text"] == " seven"
    longer = complete(server, stop_token_ids=[token], min_tokens=4)
    assert longer["usage"]["completion_tokens"] >= 4
    assert not longer["text"].startswith(" seven")


def test_an_answer_has_as_many_tokens_as_any_of_the_names_of_its_limit_says(server: RunningServer) -> None:
    for name in ("max_tokens", "max_completion_tokens", "n_predict"):
        assert complete(server, **{"max_tokens": None, name: 3})["usage"]["completion_tokens"] == 3
    assert complete(server, max_tokens=-1, stop=[" nine"])["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "fields",
    [
        {"typical_p": 0.01},
        {"top_n_sigma": 0.01},
        {"samplers": ["top_k", "temperature"], "top_k": 1, "top_p": 1},
        {"samplers": "kt", "top_k": 1},
        {"mirostat": 2, "mirostat_tau": 0.0},
        {"dynatemp_range": 0.0, "min_p": 1.0},
    ],
)
def test_a_sampler_that_leaves_one_token_leaves_the_most_likely(server: RunningServer, fields: dict[str, Any]) -> None:
    # At a high temperature, an answer of eight tokens is otherwise the greedy one once in a universe.
    hot = {"temperature": 5.0, "seed": 1, "max_tokens": 4}
    greedy = complete(server, max_tokens=4)["text"]
    assert complete(server, **hot)["text"] != greedy
    if "typical_p" in fields:
        # The most typical token need not be the most likely one, but it is always the same.
        assert complete(server, **hot, **fields)["text"] == complete(server, **{**hot, "seed": 2}, **fields)["text"]
    else:
        assert complete(server, **hot, **fields)["text"] == greedy


def test_xtc_drops_the_likely_tokens(server: RunningServer) -> None:
    sure = {"temperature": 0.1, "seed": 1, "max_tokens": 1}
    assert complete(server, **sure)["text"] == " seven"
    assert complete(server, **sure, xtc_probability=1.0, xtc_threshold=0.0001)["text"] != " seven"


def test_special_tokens_are_text_where_that_is_asked_for(server: RunningServer) -> None:
    (token,) = server.post("/tokenize", {"model": "smollm2", "content": "<|im_start|>", "parse_special": True}).json()[
        "tokens"
    ]
    forced = {"logit_bias": {str(token): 100}, "max_tokens": 1}
    assert complete(server, **forced)["text"] == ""
    assert complete(server, **forced, skip_special_tokens=False)["text"] == "<|im_start|>"


def test_the_best_of_several_answers_are_returned(server: RunningServer) -> None:
    best = complete(server, temperature=1.5, logprobs=0, n=2, best_of=6)
    scores = [choice["logprobs"]["token_logprobs"] for choice in best["choices"]]
    means = [sum(each) / len(each) for each in scores]
    assert means == sorted(means, reverse=True)
    assert [choice["index"] for choice in best["choices"]] == [0, 1]
    assert best["usage"]["completion_tokens"] > 2 * 8
    assert complete(server, temperature=0, best_of=2)["logprobs"] is None


def test_log_probabilities_may_name_tokens_by_id(server: RunningServer) -> None:
    answer = complete(server, logprobs=1, return_tokens_as_token_ids=True, echo=True)
    names = answer["logprobs"]["tokens"]
    assert [int(name.removeprefix("token_id:")) for name in names] == tokens(server, answer["text"])
    assert all(name.startswith("token_id:") for each in answer["logprobs"]["top_logprobs"][1:] for name in each)


def test_a_prompt_is_scored_beside_its_answer(server: RunningServer) -> None:
    echoed = complete(server, echo=True, logprobs=1, max_tokens=1)["logprobs"]
    scored = complete(server, prompt_logprobs=1, max_tokens=1)
    first, *others = scored["prompt_logprobs"]
    ids = tokens(server, PROMPT)
    assert first is None
    assert scored["logprobs"] is None
    assert scored["text"]
    for token, entries, logprob in zip(ids[1:], others, echoed["token_logprobs"][1:], strict=False):
        assert entries[str(token)]["logprob"] == pytest.approx(logprob, abs=0.3)
        assert len(entries) == (1 if entries[str(token)]["rank"] == 1 else 2)
    assert len(others) == len(ids) - 1


def test_the_prompt_of_a_chat_is_scored(server: RunningServer) -> None:
    turns = [{"role": "user", "content": "Say yes."}]
    body = {"model": "smollm2", "messages": turns, "max_tokens": 1, "prompt_logprobs": 0}
    answer = server.post("/v1/chat/completions", body).json()
    assert len(answer["prompt_logprobs"]) == answer["usage"]["prompt_tokens"]
    assert answer["choices"][0]["logprobs"] is None
    refused = server.post("/v1/chat/completions", {**body, "stream": True})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "prompt_logprobs"


def test_an_answer_has_only_allowed_tokens_and_no_bad_words(server: RunningServer) -> None:
    yes, no = tokens(server, " yes")[0], tokens(server, " no")[0]
    assert complete(server, allowed_token_ids=[yes, no])["text"].replace(" yes", "").replace(" no", "") == ""
    said = complete(server)["text"]
    assert "seven" in said
    assert "seven" not in complete(server, bad_words=["seven"])["text"]
    outside = server.post("/v1/completions", {"model": "smollm2", "prompt": PROMPT, "allowed_token_ids": [10**6]})
    assert (outside.status_code, outside.json()["error"]["param"]) == (400, "allowed_token_ids")


def test_a_prompt_is_cut_at_its_beginning(server: RunningServer) -> None:
    last = tokens(server, PROMPT)[-4:]
    cut = complete(server, prompt="Something else. " + PROMPT, truncate_prompt_tokens=4)
    assert cut["usage"]["prompt_tokens"] == 4
    assert cut["text"] == complete(server, prompt=last)["text"]
    too_long = complete(server, prompt="word " * 20_000 + PROMPT, truncate_prompt_tokens=4)
    assert too_long["text"] == cut["text"]
    echoed = complete(server, prompt="Something else. " + PROMPT, truncate_prompt_tokens=4, echo=True, logprobs=0)
    assert "".join(echoed["logprobs"]["tokens"]) == echoed["text"]
    # Its logits are computed in other steps, so that its answer may be another one.
    assert PROMPT.endswith("".join(echoed["logprobs"]["tokens"][:4]))
    whole = complete(server, truncate_prompt_tokens=10_000, echo=True)
    assert whole["text"].startswith(PROMPT)
    assert complete(server, truncate_prompt_tokens=10_000)["text"] == complete(server)["text"]


def test_an_answer_of_several_lines_ends_when_its_time_is_over(server: RunningServer) -> None:
    fields = {"max_tokens": 400, "ignore_eos": True, "t_max_predict_ms": 1}
    cut = complete(server, **fields, prompt="A list:\n1. one\n2. two\n")
    assert cut["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] < 400
