"""Prompts and their media, and the parameters of sampling."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

SAMPLE_BYTES: Final = 4

# Some audio encoders end the process on clips of a few frames, so shorter clips and remainders are padded with silence.
MIN_S: Final = 0.1

Detail = Literal["auto", "low", "high", "original"]
"""OpenAI's levels of image detail: "low" is one overview of the image, the others use its full resolution."""


@dataclass(frozen=True, slots=True)
class Image:
    """A decoded image.

    Attributes:
        width, height: in pixels.
        pixels: [height, width, 3] as bytes: red, green, blue.
        param: the request field that contained it.
        detail: resolution at which the model sees it.
        salt: see ``salted``.
        digest: equal for equal pixels and salts. It leaves out detail, which only decides how the image is cut up.
    """

    width: int
    height: int
    pixels: bytes = field(repr=False)
    param: str = "messages"
    detail: Detail = "auto"
    salt: str = ""
    digest: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.pixels) != 3 * self.width * self.height:
            raise ValueError(f"{len(self.pixels)} bytes are not {self.width} x {self.height} pixels")
        digest = hashlib.blake2b(self.pixels, digest_size=16, salt=self.width.to_bytes(8)).digest()
        object.__setattr__(self, "digest", _salted(digest, self.salt))


@dataclass(frozen=True, slots=True)
class Audio:
    """A decoded clip of sound, of one channel.

    Attributes:
        samples: 32-bit floats from -1 to 1, as bytes in the machine's order.
        rate: samples per second.
        param: the request field that contained it.
        salt: see ``salted``.
        digest: equal for equal samples, rates and salts.
    """

    samples: bytes = field(repr=False)
    rate: int
    param: str = "messages"
    salt: str = ""
    digest: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.samples) % SAMPLE_BYTES:
            raise ValueError(f"{len(self.samples)} bytes are not samples of {SAMPLE_BYTES} bytes")
        # The salt also keeps a clip apart from an image of the same bytes.
        digest = hashlib.blake2b(self.samples, digest_size=16, salt=b"audio" + self.rate.to_bytes(8)).digest()
        object.__setattr__(self, "digest", _salted(digest, self.salt))

    @property
    def length(self) -> int:
        """Number of samples."""
        return len(self.samples) // SAMPLE_BYTES

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return self.length / self.rate


Media = Image | Audio
"""The parts of a prompt that are not text."""


def salted(medium: Media, salt: str) -> Media:
    """Return ``medium``, which has no salt yet, with ``salt``: its cached state is reused for that salt alone.

    The new digest is derived from the old one, without reading the pixels or samples.
    """
    if not salt:
        return medium
    copied = copy.copy(medium)
    object.__setattr__(copied, "salt", salt)
    object.__setattr__(copied, "digest", _salted(medium.digest, salt))
    return copied


def _salted(digest: bytes, salt: str) -> bytes:
    return hashlib.blake2b(digest + salt.encode(), digest_size=16).digest() if salt else digest


class ControlText(str):
    """A part of a message in which control tokens count, because the server wrote it."""

    __slots__ = ()


class PlainText(str):
    """A part of a written prompt in which control tokens do not count, because the request brought it."""

    __slots__ = ()


Content = str | tuple[str | Media, ...]
"""The content of a message: text, or a sequence of texts, images and clips."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, which the model's chat template renders.

    Attributes:
        messages: role/content mappings, as templates read them.
        tools: functions that the model may call, in OpenAI's shape.
        tool_choice: "auto", "none", "required", or a named function.
        parallel_tool_calls: whether an answer may call more than one.
        options: further variables of the template, such as enable_thinking.
        continues: whether the answer goes on from the end of the last message; see ``ends_in_an_answer``.
        opens_turn: whether the assistant's turn is opened where the answer does not go on from a message.
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    continues: bool = False
    opens_turn: bool = True


def ends_in_an_answer(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last message is the beginning of an answer: the assistant's, with text or reasoning and no calls."""
    last = messages[-1] if messages else {}
    has_text = bool(last.get("content")) or any(last.get(name) for name in ("reasoning_content", "reasoning"))
    return last.get("role") == "assistant" and has_text and not last.get("tool_calls")


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text to continue."""

    text: str


@dataclass(frozen=True, slots=True)
class Written:
    """A rendered prompt: texts, special tokens included but in ``PlainText``, with images and clips in their order.

    For tasks that no chat template covers, such as transcription by some models. Until an image or clip is loaded, a
    reference may stand in its place, as in the messages of a chat.
    """

    parts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids to continue."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NamedTool:
    """A tool choice that requires a call of the function ``name``."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | NamedTool


@dataclass(frozen=True, slots=True)
class Pieces:
    """Texts and token ids to continue, one behind the other."""

    parts: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Infill:
    """Text with a gap that the model fills.

    Attributes:
        before, behind: the text on both sides of the gap.
        begun: the beginning of the filling, which the model continues.
        files: name and text of other files of the project, the most relevant last. They are cut at their beginning to
            what the context has room for.
        reserved: tokens of the context that ``files`` leave for the answer.
    """

    before: str
    behind: str
    begun: str = ""
    files: tuple[tuple[str, str], ...] = ()
    reserved: int = 0


Prompt = Chat | Text | Tokens | Pieces | Infill | Written


def media_of(prompt: Prompt) -> list[Media]:
    """Return the images and clips in ``prompt``, in their order."""
    match prompt:
        case Written(parts):
            contents: list[Any] = [parts]
        case Chat(messages):
            contents = [message.get("content") for message in messages]
        case _:
            contents = []
    return [part for content in contents if isinstance(content, tuple) for part in content if isinstance(part, Media)]


SamplerName = Literal["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]
"""The samplers of a chain, by the names of llama.cpp."""

SAMPLER_ORDER: Final[tuple[SamplerName, ...]] = (
    *("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"),
)
"""The default order. Source: llama.cpp, common/common.h, ``common_params_sampling::samplers``."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Parameters of sampling. None means unset: the next source of defaults decides.

    temperature 0 is greedy; top_k 0, top_p 1, min_p 0, typical_p 0 and 1, top_n_sigma 0 and below, xtc_probability 0,
    dynatemp_range 0 and mirostat 0 are off. logit_bias adds to the logit of a token id, text_bias to the logits of all
    tokens of a text; minus infinity bans them. Penalties look back over penalty_window tokens; a window below 0 is the
    whole sequence. samplers selects and orders the samplers of the chain; () is none of them.

    DRY lowers the logit of a token that would extend a repetition of n >= dry_allowed_length tokens by
    dry_multiplier * dry_base ** (n - dry_allowed_length); a repetition does not extend across any of the
    dry_sequence_breakers, and is sought in the last dry_window tokens. Source:
    https://github.com/oobabooga/text-generation-webui/pull/5677.

    The others are those of llama.cpp. Source: tools/server/README.md there.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logit_bias: Mapping[int, float] | None = None
    penalty_window: int | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_sequence_breakers: tuple[str, ...] | None = None
    dry_window: int | None = None
    text_bias: Mapping[str, float] | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    samplers: tuple[SamplerName, ...] | None = None

    def over(self, defaults: Sampling) -> Sampling:
        """Return these parameters, with those that are None taken from ``defaults``."""
        unset = {f.name: getattr(defaults, f.name) for f in fields(self) if getattr(self, f.name) is None}
        return replace(self, **unset)
