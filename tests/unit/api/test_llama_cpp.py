"""The shapes of llama.cpp's endpoints, without a model."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from modelyard.api.llama_cpp.embedding import EmbeddingBody, normalized
from modelyard.api.llama_cpp.encoder import probability_object, selected_fields
from modelyard.api.llama_cpp.model_events import change_event
from modelyard.api.llama_cpp.prompts import prompts_of
from modelyard.api.llama_cpp.properties import slot_objects
from modelyard.api.llama_cpp.schema import FimRequest, InfillRequest, NativeCompletionRequest
from modelyard.api.llama_cpp.settings import generation_settings
from modelyard.api.media.load import AudioReference, ImageReference
from modelyard.api.openai.embeddings import embedding_inputs
from modelyard.api.serving.ignored_fields import ignored_fields
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Infill, Pieces, Sampling, Text, Tokens, Written
from modelyard.protocol.values import TokenLogprob
from modelyard.yard.requests.requests import Request
from modelyard.yard.residency.state import LoadState
from modelyard.yard.stats.status_broadcaster import StatusChange

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and more of it").decode()
WAV = base64.b64encode(b"RIFF\x00\x00\x00\x00WAVEfmt and more").decode()


@pytest.mark.parametrize(
    ("value", "prompts"),
    [
        ("a", [Text("a")]),
        ([1, 2], [Tokens((1, 2))]),
        ([1, "a", 2], [Pieces((1, "a", 2))]),
        (["a", "b"], [Text("a"), Text("b")]),
        ([[1, 2], "a", [3, "b"]], [Tokens((1, 2)), Text("a"), Pieces((3, "b"))]),
        ({"prompt_string": "a"}, [Text("a")]),
        ([{"prompt_string": "a"}, [1]], [Text("a"), Tokens((1,))]),
    ],
)
def test_a_prompt_is_read_by_its_shape(value: Any, prompts: list[Any]) -> None:
    assert prompts_of(value) == prompts


@pytest.mark.parametrize("value", [[], None, 7, [[]], [True], [1, None], [1, [2]], {"prompt": "a"}])
def test_other_shapes_are_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        prompts_of(value)
    assert str(refused.value.param).startswith("prompt")


def test_markers_stand_for_files() -> None:
    value = {"prompt_string": "See <__media__> and hear <__media__>!", "multimodal_data": [PNG, WAV]}
    ((written,),) = [prompts_of(value)]
    assert isinstance(written, Written)
    see, picture, hear, clip, end = written.parts
    assert (see, hear, end) == ("See ", " and hear ", "!")
    assert isinstance(picture, ImageReference)
    assert isinstance(clip, AudioReference)
    assert picture.param == "prompt.multimodal_data[0]"


def test_each_file_needs_a_marker() -> None:
    with pytest.raises(InvalidRequest, match="1 files"):
        prompts_of({"prompt_string": "no marker", "multimodal_data": [PNG]})


def completion(**fields: Any) -> Request:
    (request,) = NativeCompletionRequest.model_validate({"prompt": "a", **fields}).to_requests()
    return request


@pytest.mark.parametrize(("n_predict", "max_tokens"), [(8, 8), (-1, None), (-2, None), (0, 1), (None, None)])
def test_n_predict_limits_the_answer(n_predict: int | None, max_tokens: int | None) -> None:
    assert completion(n_predict=n_predict).max_tokens == max_tokens


def test_llama_cpp_s_names_of_sampling_are_understood() -> None:
    sampling = completion(repeat_penalty=1.5, repeat_last_n=8, seed=-1).sampling
    assert (sampling.repetition_penalty, sampling.penalty_window, sampling.seed) == (1.5, 8, None)
    assert completion(seed=7).sampling.seed == 7


def test_several_answers_of_several_prompts_are_several_requests() -> None:
    body = NativeCompletionRequest.model_validate({"prompt": ["a", "b"], "n_cmpl": 2, "seed": 1})
    requests = body.to_requests()
    assert [request.prompt for request in requests] == [Text("a"), Text("a"), Text("b"), Text("b")]
    assert [request.sampling.seed for request in requests] == [1, 2, 1, 2]


def test_a_schema_and_a_format_exclude_each_other() -> None:
    with pytest.raises(InvalidRequest, match="json_schema"):
        completion(json_schema={}, response_format={"type": "json_object"})


@pytest.mark.parametrize("field", ["n_indent", "min_keep", "return_progress", "sse_ping_interval"])
def test_a_field_without_an_effect_is_named(field: str) -> None:
    body = NativeCompletionRequest.model_validate({"prompt": "a", field: True if field == "return_progress" else 5})
    assert ignored_fields(body) == [field]
    assert ignored_fields(NativeCompletionRequest.model_validate({"prompt": "a", "n_indent": 0})) == []


def test_infill_has_the_other_files_and_the_beginning_of_the_filling() -> None:
    body = {
        "input_prefix": "def f(",
        "input_suffix": "): pass",
        "prompt": "a",
        "input_extra": [{"filename": "b.py", "text": "x = 1"}, {"text": "y = 2"}],
        "n_predict": 16,
    }
    (request,) = InfillRequest.model_validate(body).to_requests()
    assert request.prompt == Infill("def f(", "): pass", "a", (("b.py", "x = 1"), ("tmp", "y = 2")), 16)


def test_mistral_s_names_are_understood() -> None:
    body = FimRequest.model_validate({"prompt": "def f(", "suffix": ")", "random_seed": 3, "max_tokens": 4})
    (request,) = body.to_requests()
    assert (request.prompt, request.sampling.seed, request.max_tokens) == (Infill("def f(", ")"), 3, 4)


def test_settings_are_those_of_the_request_over_those_of_the_model() -> None:
    defaults = Sampling(temperature=0.5, top_k=40, top_p=0.9, min_p=0.1, repetition_penalty=1.0, penalty_window=64)
    request = Request(Text("a"), sampling=Sampling(top_k=3, logit_bias={7: -1.0}), stop=("x",), logprobs=2)
    settings = generation_settings(request, defaults, n_predict=-1, is_stream=False)
    assert (settings["temperature"], settings["top_k"], settings["n_probs"]) == (0.5, 3, 2)
    assert settings["logit_bias"] == [{"token": 7, "bias": -1.0}]
    assert settings["seed"] == 0xFFFFFFFF
    assert settings["stop"] == ["x"]


def test_a_probability_names_ids_and_bytes() -> None:
    found = probability_object(TokenLogprob(b"\xe2", -0.5, ((b"a", -1.0),), 7, (9,)))
    assert (found["id"], found["bytes"], found["logprob"]) == (7, [0xE2], -0.5)
    assert found["top_logprobs"] == [{"id": 9, "token": "a", "bytes": [97], "logprob": -1.0}]


def test_selected_fields_keep_their_whole_names() -> None:
    answer = {"content": "x", "timings": {"prompt_n": 1}, "stop": True}
    assert selected_fields(answer, ["timings/prompt_n", "content/x", "stop"]) == {"timings/prompt_n": 1, "stop": True}


@pytest.mark.parametrize(
    ("norm", "expected"),
    [(0, [-24570.0, 32760.0]), (1, [-3 / 7, 4 / 7]), (2, [-0.6, 0.8]), (3, [-0.667, 0.8894])],
)
def test_vectors_are_normalised_as_llama_cpp_does(norm: int, expected: list[float]) -> None:
    vectors = np.array([[-0.6, 0.8]], np.float32)
    assert normalized(vectors, norm)[0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("norm", [0, 1, 2, 7])
def test_a_vector_of_zeros_stays_one(norm: int) -> None:
    assert not normalized(np.zeros((1, 4), np.float32), norm).any()


@pytest.mark.parametrize("fields", [{}, {"content": []}, {"content": "a", "embd_normalize": -1}])
def test_an_embedding_of_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        EmbeddingBody.model_validate(fields).request()


@pytest.mark.parametrize(
    ("change", "data"),
    [
        (StatusChange("m", LoadState.LOADED), {"status": "loaded"}),
        (StatusChange("m", LoadState.PARKED), {"status": "sleeping"}),
        (StatusChange("m", LoadState.FAILED, reason="no"), {"status": "unloaded", "failed": True}),
        (
            StatusChange("m", LoadState.LOADING, progress=0.5),
            {
                "status": "loading",
                "progress": {"stages": ["text_model"], "current": "text_model", "value": 0.5},
            },
        ),
        (StatusChange("m", None), None),
    ],
)
def test_changes_are_events_of_the_router(change: StatusChange, data: dict[str, Any] | None) -> None:
    event = json.loads(change_event(change).removeprefix(b"data: "))
    assert event["model"] == "m"
    assert event["event"] == ("model_remove" if data is None else "model_status")
    assert event.get("data") == data


def test_as_many_slots_are_busy_as_answers_are_computed() -> None:
    assert [slot["is_processing"] for slot in slot_objects(512, 3, 2)] == [True, True, False]
    assert [slot["is_processing"] for slot in slot_objects(512, 1, 5)] == [True]


def test_an_input_of_embeddings_may_be_an_object_with_text() -> None:
    parts = {"content": [{"type": "text", "text": "hello "}, {"type": "text", "text": "world"}]}
    assert embedding_inputs(parts, "input") == (Text("hello world"),)
    assert embedding_inputs([parts, "a", {"prompt_string": "b"}], "input") == (
        Text("hello world"),
        Text("a"),
        Text("b"),
    )


@pytest.mark.parametrize("value", [{}, {"content": "a"}, {"content": [{"type": "image_url"}]}, [{"content": []}]])
def test_other_objects_are_no_input_of_embeddings(value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        embedding_inputs(value, "input")
    assert str(refused.value.param).startswith("input")
