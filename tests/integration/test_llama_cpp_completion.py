"""llama.cpp's native endpoints, with real weights."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.server import RunningServer

SKY = "The sky is"


def completed(server: RunningServer, prompt: Any, **fields: Any) -> Any:
    response = server.post("/completion", {"model": "smollm2", "prompt": prompt, "n_predict": 6, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def streamed(server: RunningServer, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = server.post(path, {**body, "stream": True})
    assert response.status_code == 200, response.text
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def ids_of(server: RunningServer, text: str) -> list[int]:
    ids: list[int] = server.post("/tokenize", {"model": "smollm2", "content": text}).json()["tokens"]
    return ids


def test_a_completion_says_how_it_ended_and_what_it_cost(server: RunningServer) -> None:
    answer = completed(server, SKY, return_tokens=True)
    assert answer["content"]
    assert answer["stop"] is True
    assert (answer["stop_type"], answer["stopping_word"], answer["truncated"]) == ("limit", "", False)
    assert len(answer["tokens"]) == answer["tokens_predicted"] == answer["timings"]["predicted_n"] == 6
    timings = answer["timings"]
    assert timings["prompt_n"] + timings["cache_n"] == answer["tokens_evaluated"] == len(ids_of(server, SKY))
    assert timings["prompt_ms"] > 0
    assert answer["generation_settings"]["n_predict"] == 6
    assert answer["generation_settings"]["temperature"] == 0
    assert answer["prompt"] == SKY


def test_a_stop_text_is_named(server: RunningServer) -> None:
    text = completed(server, SKY)["content"]
    word = text.split()[1]
    answer = completed(server, SKY, stop=[word])
    assert (answer["stop_type"], answer["stopping_word"]) == ("word", word)
    assert answer["content"] == text[: text.index(word)]


def test_a_stream_has_the_text_and_the_tokens_of_the_whole_answer(server: RunningServer) -> None:
    whole = completed(server, SKY, return_tokens=True)
    events = streamed(
        server,
        "/completion",
        {"model": "smollm2", "prompt": SKY, "n_predict": 6, "timings_per_token": True},
    )
    *pieces, last = events
    assert "".join(piece["content"] for piece in pieces) == whole["content"]
    assert [token for piece in pieces for token in piece["tokens"]] == whole["tokens"]
    assert not any(piece["stop"] for piece in pieces)
    assert [piece["timings"]["predicted_n"] for piece in pieces][-1] == 6
    assert last["stop"] is True
    assert last["content"] == ""
    assert last["stop_type"] == "limit"


def test_a_prompt_may_be_text_tokens_both_or_several(server: RunningServer) -> None:
    ids = ids_of(server, SKY)
    expected = completed(server, SKY)["content"]
    assert completed(server, ids)["content"] == expected
    assert completed(server, [*ids[:2], " is"])["content"] == expected
    assert completed(server, {"prompt_string": SKY})["content"] == expected
    several = completed(server, [ids, SKY, {"prompt_string": SKY}])
    assert [answer["content"] for answer in several] == [expected] * 3
    assert [answer["index"] for answer in several] == [0, 1, 2]


def test_probabilities_name_tokens_by_id(server: RunningServer) -> None:
    answer = completed(server, SKY, n_probs=3, return_tokens=True)
    probabilities = answer["completion_probabilities"]
    assert [each["id"] for each in probabilities] == answer["tokens"]
    for each in probabilities:
        assert bytes(each["bytes"]).decode() == each["token"]
        assert len(each["top_logprobs"]) == 3
        assert each["top_logprobs"][0]["id"] == each["id"]
        assert each["top_logprobs"][0]["logprob"] == pytest.approx(each["logprob"])


def test_probabilities_after_sampling_are_those_of_what_could_be_drawn(server: RunningServer) -> None:
    drawn = {"temperature": 1.0, "seed": 4, "top_k": 5, "n_probs": 10, "return_tokens": True}
    plain, sampled = (completed(server, SKY, **drawn, post_sampling_probs=after) for after in (False, True))
    assert sampled["tokens"] == plain["tokens"]
    for each in sampled["completion_probabilities"]:
        probabilities = {top["id"]: top["prob"] for top in each["top_probs"]}
        assert 1 <= len(probabilities) <= 5
        assert sum(probabilities.values()) == pytest.approx(1.0, abs=1e-5)
        assert probabilities[each["id"]] == pytest.approx(each["prob"])
    greedy = completed(server, SKY, n_probs=10, post_sampling_probs=True)
    for each in greedy["completion_probabilities"]:
        assert each["prob"] == 1.0
        assert len(each["top_probs"]) == 1


def test_n_predict_0_computes_the_prompt_for_later(server: RunningServer) -> None:
    prompt = "A prompt that no other test sends, to be computed ahead of its question."
    ahead = completed(server, prompt, n_predict=0)
    assert (ahead["content"], ahead["tokens_predicted"]) == ("", 0)
    assert completed(server, prompt)["tokens_cached"] > 0


def test_response_fields_leave_the_others_out(server: RunningServer) -> None:
    answer = completed(server, SKY, response_fields=["content", "generation_settings/n_predict", "nothing"])
    assert answer == {"content": completed(server, SKY)["content"], "generation_settings/n_predict": 6}


def test_json_schema_holds_the_answer(server: RunningServer) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    answer = completed(server, "JSON:", json_schema=schema, n_predict=32)
    assert set(json.loads(answer["content"])) == {"ok"}


def test_what_has_no_effect_is_named(server: RunningServer) -> None:
    body = {"model": "smollm2", "prompt": SKY, "n_predict": 1, "min_keep": 5, "id_slot": -1}
    assert server.post("/completion", body).headers["x-modelyard-ignored"] == "min_keep"


@pytest.mark.parametrize("path", ["/completion", "/v1/completions", "/v1/chat/completions"])
def test_a_stream_reports_the_progress_of_its_prompt(server: RunningServer, path: str) -> None:
    text = f"{path} " + "The sky is blue. " * 60
    asked = {"messages": [{"role": "user", "content": text}]} if "chat" in path else {"prompt": text}
    body = {"model": "smollm2", **asked, "max_tokens": 2, "return_progress": True, "stream": True}
    events = streamed(server, path, body)
    steps = [event["prompt_progress"] for event in events if "prompt_progress" in event]
    assert [step["processed"] for step in steps] == sorted({step["processed"] for step in steps})
    assert steps[-1]["processed"] == steps[-1]["total"]
    assert steps[0]["cache"] == steps[0]["processed"], "the first is of what need not be computed, as llama.cpp has it"
    assert len(steps) > 1


@pytest.mark.parametrize("prompt", [[], None, 7, [[]], [None], [1.5], {"text": SKY}])
def test_a_prompt_of_another_shape_is_refused(server: RunningServer, prompt: Any) -> None:
    response = server.post("/completion", {"model": "smollm2", "prompt": prompt})
    assert response.status_code == 400
    assert "prompt" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/infill", {"input_prefix": "def f(", "input_suffix": "):", "n_predict": 2}),
        ("/v1/fim/completions", {"prompt": "def f(", "suffix": "):", "max_tokens": 2}),
    ],
)
def test_a_model_without_tokens_for_gaps_says_so(server: RunningServer, path: str, body: dict[str, Any]) -> None:
    response = server.post(path, {"model": "smollm2", **body})
    assert response.status_code == 400
    assert "filling gaps" in response.json()["error"]["message"]


def test_properties_tell_the_template_and_the_defaults(server: RunningServer) -> None:
    found = server.get("/props?model=smollm2").json()
    assert "<|im_start|>" in found["chat_template"]
    assert found["default_generation_settings"]["n_ctx"] == 2048
    assert found["default_generation_settings"]["params"]["temperature"] == 0
    assert found["total_slots"] == 8
    assert found["model_path"] == "smollm2"
    assert server.get("/props").json()["model_alias"] == "smollm2"
    assert server.get("/props?model=nothing").status_code == 404


def test_idle_slots_are_as_many_as_answers_at_once(server: RunningServer) -> None:
    slots = server.get("/slots?model=smollm2&fail_on_no_slot=1").json()
    assert [slot["id"] for slot in slots] == list(range(8))
    assert not any(slot["is_processing"] for slot in slots)


def test_apply_template_returns_the_text_that_is_tokenised(server: RunningServer) -> None:
    messages = [{"role": "user", "content": "What is today?"}]
    prompt = server.post("/apply-template", {"model": "smollm2", "messages": messages}).json()["prompt"]
    assert prompt.endswith("<|im_start|>user\nWhat is today?<|im_end|>\n<|im_start|>assistant\n")
    counted = server.post("/v1/chat/completions/input_tokens", {"model": "smollm2", "messages": messages}).json()
    assert counted == {"object": "response.input_tokens", "input_tokens": len(ids_of(server, prompt))}


def test_openai_s_answers_have_timings(server: RunningServer) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    body: dict[str, Any] = {"model": "smollm2", "messages": messages, "max_tokens": 4}
    whole = server.post("/v1/chat/completions", body).json()
    assert whole["timings"]["predicted_n"] == whole["usage"]["completion_tokens"]
    *pieces, last = streamed(server, "/v1/chat/completions", body)
    assert not any("timings" in piece for piece in pieces)
    assert last["timings"]["predicted_n"] == 4
    text = streamed(
        server, "/v1/completions", {"model": "smollm2", "prompt": SKY, "max_tokens": 4, "timings_per_token": True}
    )
    assert [piece["timings"]["predicted_n"] for piece in text] == sorted(
        piece["timings"]["predicted_n"] for piece in text
    )
