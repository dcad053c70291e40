"""Settings of answers, as ``/set`` and as options take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modelyard.api.openai.sampling import SamplingFields
from modelyard.api.openai.schema import ChatCompletionRequest, CompletionRequest
from modelyard.cli import app
from modelyard.cli.chat.settings import SETTINGS, BadSetting, setting_of, shown, value_of
from modelyard.cli.run_names import RunNames, read_run_names


def test_each_field_of_sampling_is_a_setting() -> None:
    names = {name for setting in SETTINGS for name in (setting.name, *setting.aliases)}
    assert set(SamplingFields.model_fields) <= names


def test_each_setting_is_a_field_of_a_request() -> None:
    for setting in SETTINGS:
        assert setting.name in ChatCompletionRequest.model_fields
        assert (setting.name in CompletionRequest.model_fields) is not setting.chat_only, setting.name


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", "0.5", 0.5),
        ("temp", "1", 1.0),
        ("top-k", "40", 40),
        ("num_predict", "-1", -1),
        ("stop", "User: '### End' \\n", ["User:", "### End", "\n"]),
        ("ignore_eos", "on", True),
        ("logit_bias", '{"42": -5}', {"42": -5}),
        ("reasoning_effort", "none", "none"),
    ],
)
def test_a_value_is_read_from_text(name: str, text: str, value: Any) -> None:
    assert value_of(setting_of(name), text) == value


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("temperature", "hot", "must be a number, not 'hot'"),
        ("temperature", "500", "must be less than or equal to 100, not 500"),
        ("temperature", "nan", "finite"),
        ("top_k", "1.5", "must be a whole number, not '1.5'"),
        ("ignore_eos", "maybe", "must be on or off, not 'maybe'"),
        ("logit_bias", "x", "must be a JSON object"),
        ("samplers", "magic", "'magic' is none of the samplers"),
        ("reasoning_effort", "huge", "be 'none'"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_bounds(name: str, text: str, problem: str) -> None:
    with pytest.raises(BadSetting) as refused:
        value_of(setting_of(name), text)
    assert problem in str(refused.value)


def test_a_setting_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(BadSetting, match="Did you mean temperature"):
        setting_of("temprature")


def test_values_are_shown_as_they_are_typed() -> None:
    assert shown(0.5) == "0.5"
    assert shown(["a b", "\n"]) == '"a b" "\\n"'
    assert shown(True) == "on"


@pytest.mark.parametrize(
    ("words", "model", "config", "named"),
    [
        (["m", "Why", "is", "it?"], None, None, RunNames("m", None, ("Why", "is", "it?"))),
        (["Why?"], "m", None, RunNames("m", None, ("Why?",))),
        (["m"], "m", None, RunNames("m")),
        (["x.toml", "small", "Why?"], None, None, RunNames("small", Path("x.toml"), ("Why?",))),
        (["Why?"], None, "x.toml", RunNames(None, Path("x.toml"), ("Why?",))),
        (["small"], None, "x.toml", RunNames("small", Path("x.toml"))),
        ([], None, None, RunNames()),
    ],
)
def test_the_first_word_is_the_model_and_the_others_are_the_question(
    words: list[str], model: str | None, config: str | None, named: RunNames
) -> None:
    read = read_run_names(words, model, None if config is None else Path(config))
    assert (read if read.config is None else read.of_config(["small"])) == named


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--temperature", "500"), "--temperature must be less than or equal to 100, not 500"),
        (("--top-k", "many"), "--top-k must be a whole number, not 'many'"),
        (("--json",), "--json needs a question"),
        (("--url", "http://x", "--local", "-i", "q"), "--url names a server, and --local is for a model"),
        (("--url", "http://x", "--ctx", "5", "-i", "q"), "--url names a server, and --ctx is for a model"),
        (("-m", "b.gguf"), "m.gguf and --model b.gguf are two models"),
        (("-f", "b.gguf"), "-f b.gguf: this is a model"),
        ((), "There is no question: standard input is empty"),
        (("q", "-i", "r"), "'q' and --input 'r' are two questions"),
        (("-i", "q", "--schema", "/none.json"), "--schema /none.json cannot be read: No such file or directory"),
    ],
)
def test_a_wrong_option_of_run_is_named_as_it_was_typed(
    arguments: tuple[str, ...], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.cli.run._is_keyboard", lambda: "--json" in arguments)
    done = CliRunner().invoke(app, ["run", "m.gguf", *arguments])
    assert done.exit_code == 2
    assert problem in " ".join(done.output.split())
