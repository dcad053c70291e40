"""Request bodies of llama.cpp's native completions, and of Mistral's fill-in-the-middle.

Source: llama.cpp, tools/server/README.md, "POST /completion" and "POST /infill"; Mistral, API reference, "Fill in the
Middle".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, WithJsonSchema

from modelyard.api.llama_cpp.prompts import prompts_of
from modelyard.api.openai.answer_format import AnswerFormatFields
from modelyard.api.openai.sampling import TokenLimit
from modelyard.api.openai.schema import (
    MAX_CHOICES,
    WITHOUT_EFFECT,
    GenerationFields,
    choices_of,
)
from modelyard.api.serving.bounded_items import Labels
from modelyard.config.model import Seed
from modelyard.protocol.prompts import Infill, Prompt
from modelyard.yard.requests.requests import Request

MAX_PROBABILITIES: Final = 128
MAX_FILES: Final = 1024

# Fields that steer how llama.cpp computes or reports an answer, not what is in it -> their values without an effect.
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "n_indent": (0,),
    "min_keep": (0,),
    "id_slot": (-1,),
    "sse_ping_interval": (),
}

_AnyPrompt = Annotated[
    str | list[Any] | dict[str, Any],
    WithJsonSchema(TypeAdapter(str | list[str | int | list[str | int]] | dict[str, Any]).json_schema()),
]


class NativeFields(GenerationFields, AnswerFormatFields):
    """The fields that /completion and /infill share."""

    known_extras: ClassVar = WITHOUT_EFFECT.union(_NEUTRAL)

    n_predict: TokenLimit | None = Field(
        default=None,
        description="Limit of tokens in the answer; -1 and -2: as many as the context holds; 0: the prompt is computed "
        "and kept for later requests.",
    )
    n_probs: Annotated[int, Field(ge=0, le=MAX_PROBABILITIES)] | None = Field(
        default=None, description="For how many of the most likely tokens the answer has log-probabilities."
    )
    post_sampling_probs: bool | None = Field(
        default=None,
        description="Whether `n_probs` gives the probabilities that tokens are drawn with, as `prob` and `top_probs`, "
        "instead of the model's own log-probabilities.",
    )
    n_cmpl: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = Field(
        default=None, description="Answers for each prompt."
    )
    cache_prompt: bool | None = Field(
        default=None, description="Has no effect: what was computed before is always used, and changes no answer."
    )
    return_tokens: bool | None = Field(default=None, description="Whether the answer has its token ids.")
    response_fields: Labels[str] | None = Field(
        default=None, description="Names of the fields that the answer has; `a/b` is the field `b` of `a`. Unset: all."
    )

    @property
    def choices(self) -> int:
        """The number of answers for each prompt."""
        return self.n_cmpl or self.n or 1

    @property
    def only_computes_prompt(self) -> bool:
        """Whether nothing is generated."""
        return self.limit == 0

    def without_effect(self) -> Iterator[str]:
        """Yield the fields whose values ask for something that does not happen."""
        yield from super().without_effect()
        sent = self.model_extra or {}
        yield from (name for name, values in _NEUTRAL.items() if sent.get(name) not in (None, *values))

    def native_requests(self, prompts: list[Prompt]) -> list[Request]:
        """Return the requests for the yard: for each prompt, one for each answer.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        requests = []
        for prompt in prompts:
            request = replace(
                self.to_request(prompt),
                **self.answer_format(),
                logprobs=self.n_probs or None,
                sampled_logprobs=bool(self.post_sampling_probs and self.n_probs),
                wants_ids=bool(self.return_tokens or self.stream),
            )
            if request.max_tokens == 0:
                # The engine computes a prompt with the first token of its answer.
                request = replace(request, max_tokens=1)
            requests += choices_of(request, self.choices)
        return requests


class NativeCompletionRequest(NativeFields):
    """The body of ``POST /completion``."""

    prompt: _AnyPrompt = Field(
        description="A text; a list of token ids and texts; an object with `prompt_string` and `multimodal_data`, "
        "files in base64 for the markers `<__media__>` in it; or a list of these, each of which is answered."
    )

    def to_requests(self) -> list[Request]:
        """Return the requests for the yard.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        return self.native_requests(prompts_of(self.prompt))


class ProjectFile(BaseModel):
    """Another file of the project that has the gap."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    text: str = Field(description="The content of the file.")
    filename: str = Field(default="tmp", description="The name of the file.")


class InfillRequest(NativeFields):
    """The body of ``POST /infill``."""

    input_prefix: str = Field(description="The text before the gap.")
    input_suffix: str = Field(description="The text behind the gap.")
    prompt: str = Field(default="", description="The beginning of what fills the gap.")
    input_extra: Annotated[list[ProjectFile], Field(max_length=MAX_FILES, fail_fast=True)] | None = Field(
        default=None,
        description="Other files, the most relevant last. What the context has no room for is cut at the beginning.",
    )

    def to_requests(self) -> list[Request]:
        """Return the requests for the yard.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        files = tuple((file.filename, file.text) for file in self.input_extra or ())
        return self.native_requests(
            [Infill(self.input_prefix, self.input_suffix, self.prompt, files, reserved=self.limit or 0)]
        )


class FimRequest(GenerationFields):
    """The body of ``POST /v1/fim/completions``."""

    prompt: str = Field(description="The text before the gap.")
    suffix: str | None = Field(default=None, description="The text behind the gap.")
    random_seed: Seed | None = Field(default=None, description="Mistral's name for `seed`.")

    def to_requests(self) -> list[Request]:
        """Return one request for the yard for each answer.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        request = self.to_request(Infill(self.prompt, self.suffix or ""))
        if self.random_seed is not None:
            request = replace(request, sampling=replace(request.sampling, seed=self.random_seed))
        return choices_of(request, self.choices)
