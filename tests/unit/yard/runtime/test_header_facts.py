"""What is known of a model from its header, before it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.config import Model
from modelyard.formats.gguf.header import GgufHeader, GgufTensor
from modelyard.formats.gguf.values import Value
from modelyard.hub import ModelFiles
from modelyard.yard.runtime.header_facts import HeaderFacts, header_facts


def facts(model: Model | None = None, **metadata: Value) -> HeaderFacts:
    named = {key.replace("__", "."): value for key, value in metadata.items()}
    tensor = GgufTensor("a", (4, 8), "F32", 0, 128)
    header = GgufHeader(3, {"general.architecture": "llama", "llama.context_length": 64, **named}, (tensor,), 128)
    files = ModelFiles((Path("m.gguf"),), header, 128, "", "F32", parameter_count=header.parameter_count)
    return header_facts(files, model or Model(model_id="org/m"))


def test_the_template_and_the_license_are_those_of_the_header() -> None:
    found = facts(tokenizer__chat_template="{{ messages }}", general__license="apache-2.0")
    assert (found.chat_template, found.license, found.can_chat, found.parameter_count) == (
        "{{ messages }}",
        "apache-2.0",
        True,
        32,
    )
    assert facts().chat_template == facts().license == ""


def test_a_configured_template_takes_the_place_of_the_headers_and_is_not_read_here(tmp_path: Path) -> None:
    own = Model(model_id="org/m", chat_template=tmp_path / "none.jinja")
    found = facts(own, tokenizer__chat_template="{{ messages }}")
    assert (found.chat_template, found.can_chat) == ("", True)


def test_sampling_is_that_of_the_configuration_and_else_what_the_header_recommends() -> None:
    own = Model.model_validate({"model_id": "org/m", "sampling": {"temperature": 0.2}})
    sampling = facts(own, general__sampling__temp=0.6, general__sampling__top_k=20).sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.2, 20, None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "0.6"])
def test_a_recommendation_that_is_no_number_is_none(value: Value) -> None:
    assert facts(general__sampling__temp=value, general__sampling__top_k=value).sampling.temperature is None
