"""The fields that control sampling and the end of an answer, in OpenAI's requests.

They are OpenAI's, and those of the same kind of llama.cpp, vLLM and mistral.rs.
Source: tools/server/README.md of llama.cpp, and vLLM's ``SamplingParams``.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from modelyard.api.serving.bounded_items import at_most
from modelyard.config.model import (
    FrequencyPenalty,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
)
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import SAMPLER_ORDER, SamplerName, Sampling

MAX_STOPS: Final = 64
MAX_STOP_LENGTH: Final = 1024
MAX_BREAKER_LENGTH: Final = 40
MAX_BREAKERS: Final = 8
MAX_BIASES: Final = 4096
MAX_TOKENS: Final = 2**31 - 1

_RANDOM_SEED: Final = -1


def one_or_more(value: Any) -> Any:
    """Return a single text as a list; any other value unchanged."""
    return [value] if isinstance(value, str) else value


_OneStop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
_Stops = Annotated[list[_OneStop], Field(max_length=MAX_STOPS, fail_fast=True)]
Stop = Annotated[_Stops, BeforeValidator(one_or_more, json_schema_input_type=_OneStop | _Stops)]

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Window = Annotated[int, Field(ge=-1, le=MAX_TOKENS)]
TokenLimit = Annotated[int, Field(ge=-2, le=MAX_TOKENS)]

_Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
_Biases = dict[str, _Bias | bool]


def _bias_mapping(value: Any) -> Any:
    """Return llama.cpp's list of pairs as a mapping; keys become texts, as those of JSON objects are."""
    if isinstance(value, list):
        pairs = [pair for pair in value if isinstance(pair, list) and len(pair) == 2 and type(pair[0]) in (int, str)]
        if len(pairs) != len(value):
            raise ValueError("must be an object, or a list of pairs of a token and a number")
        return {str(token): bias for token, bias in pairs}
    return {str(token): bias for token, bias in value.items()} if isinstance(value, dict) else value


LogitBias = Annotated[
    _Biases,
    Field(max_length=MAX_BIASES),
    at_most(MAX_BIASES),
    BeforeValidator(_bias_mapping, json_schema_input_type=_Biases | list[tuple[int | str, _Bias | bool]]),
]

# Other spellings of the names of samplers. Source: llama.cpp, common/sampling.cpp.
_SPELLINGS: Final[dict[str, SamplerName]] = {
    **{name: name for name in SAMPLER_ORDER},
    **{name.replace("_", "-"): name for name in SAMPLER_ORDER},
    "typical_p": "typ_p",
    "typical-p": "typ_p",
    "typical": "typ_p",
    "nucleus": "top_p",
    "temp": "temperature",
}
_LETTERS: Final[dict[str, SamplerName]] = {
    "e": "penalties",
    "d": "dry",
    "s": "top_n_sigma",
    "k": "top_k",
    "y": "typ_p",
    "p": "top_p",
    "m": "min_p",
    "x": "xtc",
    "t": "temperature",
}


def _sampler_names(value: Any) -> Any:
    """Return the names of samplers in llama.cpp's main spelling; a text has one letter for each."""
    known = _LETTERS if isinstance(value, str) else _SPELLINGS
    if not isinstance(value, str | list):
        return value
    for name in value:
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"'{str(name)[:40]}' is none of the samplers: {', '.join(SAMPLER_ORDER)}")
    return [known[name] for name in value]


Samplers = Annotated[
    list[SamplerName],
    Field(max_length=2 * len(SAMPLER_ORDER), fail_fast=True),
    BeforeValidator(_sampler_names, json_schema_input_type=str | list[str]),
]


class SamplingFields(BaseModel):
    """The fields of sampling. Null means unset: the model's default decides."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    typical_p: Fraction | None = None
    top_n_sigma: Annotated[float, Field(ge=-1, le=100, allow_inf_nan=False)] | None = None
    xtc_probability: Fraction | None = None
    xtc_threshold: Fraction | None = None
    dynatemp_range: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    dynatemp_exponent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    mirostat: Annotated[int, Field(ge=0, le=2)] | None = None
    mirostat_tau: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    mirostat_eta: Fraction | None = None
    samplers: Samplers | None = None
    repetition_penalty: RepetitionPenalty | None = None
    repeat_penalty: RepetitionPenalty | None = None
    repeat_last_n: Window | None = None
    presence_penalty: PresencePenalty | None = None
    frequency_penalty: FrequencyPenalty | None = None
    seed: Seed | None = None
    logit_bias: LogitBias | None = None
    dry_multiplier: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = Field(
        default=None, description="Penalty of a token that would continue a repetition; 0: none."
    )
    dry_base: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] | None = None
    dry_allowed_length: Annotated[int, Field(ge=0, le=MAX_STOP_LENGTH)] | None = None
    dry_penalty_last_n: Window | None = None
    dry_sequence_breakers: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=MAX_BREAKER_LENGTH)]],
            Field(max_length=MAX_BREAKERS, fail_fast=True),
        ]
        | None
    ) = None

    def sampling(self) -> Sampling:
        """Return the parameters for the engine.

        Raises:
            InvalidRequest: two names of one parameter have different values, or a token id is too large.
        """
        repetition = self.repetition_penalty
        if repetition is None:
            repetition = self.repeat_penalty
        elif self.repeat_penalty not in (None, repetition):
            raise InvalidRequest(
                "'repeat_penalty' and 'repetition_penalty' are names of one parameter, and differ. Leave one out.",
                "repeat_penalty",
            )
        biases = {token: _bias_value(bias) for token, bias in (self.logit_bias or {}).items()}
        ids = {int(token): bias for token, bias in biases.items() if _is_id(token)}
        if too_large := next((token for token in ids if token > MAX_TOKENS), None):
            raise InvalidRequest(f"'logit_bias': {too_large} is no token id.", "logit_bias")
        texts = {text: bias for text, bias in biases.items() if not _is_id(text)}
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=repetition,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            seed=None if self.seed == _RANDOM_SEED else self.seed,
            logit_bias=ids or None,
            penalty_window=self.repeat_last_n,
            dry_multiplier=self.dry_multiplier,
            dry_base=self.dry_base,
            dry_allowed_length=self.dry_allowed_length,
            dry_sequence_breakers=None if self.dry_sequence_breakers is None else tuple(self.dry_sequence_breakers),
            dry_window=self.dry_penalty_last_n,
            text_bias=texts or None,
            typical_p=self.typical_p,
            top_n_sigma=self.top_n_sigma,
            xtc_probability=self.xtc_probability,
            xtc_threshold=self.xtc_threshold,
            dynatemp_range=self.dynatemp_range,
            dynatemp_exponent=self.dynatemp_exponent,
            mirostat=self.mirostat,
            mirostat_tau=self.mirostat_tau,
            mirostat_eta=self.mirostat_eta,
            samplers=None if self.samplers is None else tuple(self.samplers),
        )


def _is_id(token: str) -> bool:
    return token.isascii() and token.isdecimal() and len(token) < 20


def _bias_value(bias: float | bool) -> float:
    """Return the number; llama.cpp's ``false`` bans the token, and ``true`` changes nothing."""
    if isinstance(bias, bool):
        return 0.0 if bias else -math.inf
    return bias
