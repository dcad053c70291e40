"""``Model`` and ``AsyncModel``, requests in process and over HTTP, and their answers, are described once."""

from __future__ import annotations

import ast
import typing
from pathlib import Path
from typing import Any

import pytest
import typing_extensions
import write_fields
import write_model
from pydantic import BaseModel

from modelyard.api.openai.chunks import ChatChunkChoice
from modelyard.api.openai.reasoning_fields import Effort
from modelyard.api.openapi import answers_openai, answers_rerank, answers_timings
from modelyard.inprocess import answers
from modelyard.inprocess.answers.usage import PromptProgress
from modelyard.inprocess.requests import chat_request


def tree(source: str) -> str:
    """Modules are compared as syntax trees: the formatter breaks lines of what is written."""
    return ast.dump(ast.parse(source))


@pytest.mark.parametrize("path", write_model.TWINS, ids=lambda path: path.name)
def test_the_methods_of_model_are_those_of_async_model(path: Path) -> None:
    assert tree(path.read_text("utf-8")) == tree(write_model.render(path)), "run: make docs"


def test_requests_take_the_same_fields_in_process_and_over_http() -> None:
    assert tree(write_fields.FIELDS.read_text("utf-8")) == tree(write_fields.render_fields()), "run: make docs"


@pytest.mark.parametrize(
    ("over_http", "in_process"),
    [
        (answers_openai.AgentChatCompletion, answers.ChatCompletion),
        (ChatChunkChoice, answers.ChunkChoice),
        (answers_openai.TextCompletion, answers.Completion),
        (answers_openai.EmbeddingList, answers.EmbeddingResponse),
        (answers_rerank.RankedDocuments, answers.RerankResponse),
        (answers_timings.Progress, PromptProgress),
    ],
    ids=lambda kind: kind.__name__,
)
def test_answers_have_the_same_fields_in_process_and_over_http(over_http: Any, in_process: type[BaseModel]) -> None:
    assert_alike(over_http, in_process)


def assert_alike(over_http: Any, in_process: type[BaseModel]) -> None:
    fields = {**in_process.model_fields, **in_process.model_computed_fields}
    hints = typing.get_type_hints(over_http)
    # Cohere's copy of the usage says nothing more, and only a piece of a stream has progress.
    assert set(fields) - {"prompt_progress"} == set(hints) - {"meta"}
    for name, hint in hints.items():
        parts = [each for each in kinds(hint) if typing_extensions.is_typeddict(each)]
        annotation = getattr(fields.get(name), "annotation", None) or getattr(fields.get(name), "return_type", None)
        for part, own in zip(parts, (each for each in kinds(annotation) if is_model(each)), strict=name != "meta"):
            assert_alike(part, own)


def kinds(hint: Any) -> list[Any]:
    inner = [each for argument in typing.get_args(hint) for each in kinds(argument)]
    return inner or [hint]


def is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def test_a_chat_takes_every_effort_in_process() -> None:
    for effort in typing.get_args(Effort):
        assert chat_request("Hi", None, {"reasoning_effort": effort}, stream=False).reasoning_effort == effort
