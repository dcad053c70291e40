"""Request bodies of /v1/audio/transcriptions and /v1/audio/translations.

Source: https://platform.openai.com/docs/api-reference/audio.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from modelyard.api.media.load import AudioFile
from modelyard.api.openai.audio.languages import language_code
from modelyard.api.openai.audio.prompts import Task
from modelyard.api.openai.schema import MAX_NAME_LENGTH, MaxTokens, refuse_unsupported
from modelyard.api.serving.wait_options import KeepAlive
from modelyard.config.model import Seed, Temperature
from modelyard.errors import InvalidRequest, UnsupportedOperation
from modelyard.protocol.prompts import Sampling

# Formats with timestamps, which language models do not produce.
_WITH_TIMES: Final = ("srt", "vtt", "diarized_json")

# Fields of OpenAI's that are not supported -> their values without an effect.
_HARMLESS: Final[dict[str, tuple[Any, ...]]] = {
    "chunking_strategy": ("auto",),
    "known_speaker_names": ([],),
    "known_speaker_references": ([],),
}

_BINARY: Final = {"type": "string", "contentMediaType": "application/octet-stream"}
_LANGUAGE: Final = "Code of the language that is spoken, such as `en`; left out: the model detects it."


def _file(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError("must be a file: a part of the form with a filename")  # noqa: TRY004 (pydantic wants it so)
    return value


def _format(value: Any) -> Any:
    if value in _WITH_TIMES:
        raise UnsupportedOperation(
            f"'response_format': '{value}' needs timestamps, which the model does not produce. "
            "Use json, text or verbose_json.",
            "response_format",
        )
    return value


class SpeechBody(BaseModel):
    """The fields of both forms."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True, protected_namespaces=())
    known_extras: ClassVar = frozenset(_HARMLESS)

    file: Annotated[bytes, BeforeValidator(_file), WithJsonSchema(_BINARY)] = Field(
        description="The speech, as a file: WAV, MP3, FLAC or Ogg, of at most 25 MiB."
    )
    model: str | None = Field(default=None, max_length=MAX_NAME_LENGTH)
    prompt: str | None = Field(
        default=None, description="Words that may occur, or the text before the clip: context for the model."
    )
    response_format: Annotated[Literal["json", "text", "verbose_json"], BeforeValidator(_format)] = Field(
        default="json", description="`verbose_json` also has the length of the clip. No format has timestamps of words."
    )
    temperature: Temperature = Field(default=0, description="Sampling temperature; 0: always the most likely token.")
    max_completion_tokens: MaxTokens | None = None
    seed: Seed | None = None
    keep_alive: KeepAlive | None = None

    def task(self) -> Task:
        """Return the task of the request.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        refuse_unsupported(self, _HARMLESS)
        return Task(AudioFile(self.file, "file"), hint=self.prompt or "")

    @property
    def sampling(self) -> Sampling:
        """The sampling parameters. The default temperature is 0: a transcription has one right answer."""
        return Sampling(temperature=self.temperature, seed=self.seed)


class TranscriptionBody(SpeechBody):
    """The form of ``POST /v1/audio/transcriptions``."""

    language: str | None = Field(default=None, description=_LANGUAGE)
    stream: bool | None = None
    timestamp_granularities: list[str] | None = Field(
        default=None, description="Must be empty: there are no timestamps."
    )
    include: list[str] | None = Field(default=None, description="Must be empty.")

    def task(self) -> Task:
        """Return the task of the request.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        if self.timestamp_granularities:
            raise UnsupportedOperation(
                "'timestamp_granularities': Timestamps of words and segments are not supported. Leave it out.",
                "timestamp_granularities",
            )
        if self.include:
            raise InvalidRequest(f"'include': '{self.include[0][:40]}' is not supported. Leave it out.", "include")
        task = super().task()
        code = language_code(self.language) if self.language else None
        return Task(task.clip, code, task.hint)


class TranslationBody(SpeechBody):
    """The form of ``POST /v1/audio/translations``."""

    def task(self) -> Task:
        """Return the task of the request.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        task = super().task()
        return Task(task.clip, None, task.hint, translates=True)
