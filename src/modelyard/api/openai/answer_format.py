"""The fields that say what an answer must look like, in the spellings of OpenAI, llama.cpp, mistral.rs and vLLM.

All of them mean the same; a request may use one.

Sources: https://platform.openai.com/docs/guides/structured-outputs, llama.cpp's tools/server/README.md, and
https://docs.vllm.ai/en/latest/features/structured_outputs.html.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from modelyard.api.openai.tools import GrammarField, ResponseFormat, schema_format
from modelyard.errors import InvalidRequest

MAX_CHOICE_TEXTS = 1024

Schema = Annotated[dict[str, Any] | str, Field(description="A JSON schema that the answer follows, or its text.")]
Choice = Annotated[
    list[str],
    Field(min_length=1, max_length=MAX_CHOICE_TEXTS, fail_fast=True, description="The answer is one of these texts."),
]
Regex = Annotated[str, Field(description="The answer matches this regular expression.")]
GrammarText = Annotated[str, Field(description="The answer follows this grammar, in GBNF or Lark.")]


class AnswerFormat(TypedDict):
    """The constraint on an answer, as ``engine.chat.grammar`` reads it; one of both, or none."""

    response_format: Mapping[str, Any] | None
    grammar: Mapping[str, Any] | None


class StructuredOutputs(BaseModel):
    """vLLM's ``structured_outputs``."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())

    json_: Schema | None = Field(default=None, alias="json")
    regex: Regex | None = None
    choice: Choice | None = None
    grammar: GrammarText | None = None
    json_object: bool | None = Field(default=None, description="Whether the answer is a JSON object.")
    structural_tag: dict[str, Any] | str | None = Field(
        default=None, description="`triggers`, and `structures` that begin with one: JSON within free text."
    )


class AnswerFormatFields(BaseModel):
    """The fields of a request that constrain its answer."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())

    response_format: ResponseFormat | None = None
    grammar: GrammarField | GrammarText | None = None
    json_schema: dict[str, Any] | None = Field(default=None, description="A JSON schema that the answer follows.")
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: Regex | None = None
    guided_choice: Choice | None = None
    guided_grammar: GrammarText | None = None

    def answer_format(self) -> AnswerFormat:
        """Return the constraint on the answer.

        Raises:
            InvalidRequest: there are several, or one of them is none.
        """
        found = {name: made for name, made in self._spelt() if made is not None}
        if len(found) > 1:
            names = " and ".join(f"'{name}'" for name in found)
            raise InvalidRequest(f"{names} exclude each other. Send one of them.", list(found)[1])
        return next(iter(found.values()), AnswerFormat(response_format=None, grammar=None))

    def _spelt(self) -> list[tuple[str, AnswerFormat | None]]:
        outputs = self.structured_outputs or StructuredOutputs()
        own = self.grammar
        return [
            ("response_format", None if self.response_format is None else _format(self.response_format)),
            ("json_schema", _schema(self.json_schema, "json_schema")),
            ("grammar", _text(own, "grammar") if not isinstance(own, GrammarField) else _grammar(own.to_constraint())),
            ("guided_json", _schema(self.guided_json, "guided_json")),
            ("guided_regex", _regex(self.guided_regex, "guided_regex")),
            ("guided_choice", _choice(self.guided_choice, "guided_choice")),
            ("guided_grammar", _text(self.guided_grammar, "guided_grammar")),
            ("structured_outputs.json", _schema(outputs.json_, "structured_outputs.json")),
            ("structured_outputs.regex", _regex(outputs.regex, "structured_outputs.regex")),
            ("structured_outputs.choice", _choice(outputs.choice, "structured_outputs.choice")),
            ("structured_outputs.grammar", _text(outputs.grammar, "structured_outputs.grammar")),
            ("structured_outputs.structural_tag", _tag(outputs.structural_tag, "structured_outputs.structural_tag")),
            ("structured_outputs.json_object", _schema({"type": "object"}, "") if outputs.json_object else None),
        ]


def _format(sent: ResponseFormat) -> AnswerFormat | None:
    constraint = sent.to_constraint()
    return None if constraint["type"] == "text" else AnswerFormat(response_format=constraint, grammar=None)


def _tag(tag: dict[str, Any] | str | None, param: str) -> AnswerFormat | None:
    return None if tag is None else _grammar({"type": "structural_tag", "value": _object(tag, param), "param": param})


def _schema(schema: dict[str, Any] | str | None, param: str) -> AnswerFormat | None:
    if schema is None:
        return None
    made = schema_format(_object(schema, param), param or "response_format")
    return AnswerFormat(response_format=made, grammar=None)


def _object(sent: dict[str, Any] | str, param: str) -> dict[str, Any]:
    """Return an object that may be sent as its text."""
    if isinstance(sent, dict):
        return sent
    try:
        parsed = json.loads(sent)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise InvalidRequest(f"'{param}' must be an object, or the text of one in JSON.", param)
    return parsed


def _grammar(constraint: Mapping[str, Any]) -> AnswerFormat:
    return AnswerFormat(response_format=None, grammar=constraint)


def _regex(regex: str | None, param: str) -> AnswerFormat | None:
    return None if regex is None else _grammar({"type": "regex", "value": regex, "param": param})


def _choice(texts: list[str] | None, param: str) -> AnswerFormat | None:
    return None if texts is None else _grammar({"type": "choice", "value": texts, "param": param})


def _text(grammar: str | None, param: str) -> AnswerFormat | None:
    return _grammar({"type": "grammar", "value": grammar, "param": param}) if grammar else None
