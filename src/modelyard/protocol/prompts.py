"""What is asked of a model: what its answer goes on from, and how the next token is drawn."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

SAMPLE_BYTES: Final = 4

# Some encoders end the process on clips of a few frames; shorter ones, and shorter ends of clips, get silence behind.
MIN_S: Final = 0.1

Detail = Literal["auto", "low", "high", "original"]
"""How closely a model looks at an image, in OpenAI's words: "low" is one overview of it, the others all that it has."""


@dataclass(frozen=True, slots=True)
class Image:
    """A decoded image.

    Attributes:
        width, height: in pixels.
        pixels: [height, width, 3] as bytes: red, green, blue.
        param: the field of the request that it came in.
        detail: how closely the model is to look.
        salt: see ``salted``.
        digest: equal for equal pixels and salts, whatever the detail: that decides which pictures are made of them.
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
        rate: samples in a second.
        param: the field of the request that it came in.
        salt: see ``salted``.
        digest: equal for equal samples at the same rate, and salts.
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
        """How many samples it has."""
        return len(self.samples) // SAMPLE_BYTES

    @property
    def duration_s(self) -> float:
        """How long it lasts."""
        return self.length / self.rate


Media = Image | Audio
"""What a prompt may hold beside text."""


def salted(medium: Media, salt: str) -> Media:
    """``medium``, which has no salt yet, with one: what is kept of it is found again for requests of that salt alone.

    Its pixels or samples are not read for that.
    """
    if not salt:
        return medium
    found = copy.copy(medium)
    object.__setattr__(found, "salt", salt)
    object.__setattr__(found, "digest", _salted(medium.digest, salt))
    return found


def _salted(digest: bytes, salt: str) -> bytes:
    return hashlib.blake2b(digest + salt.encode(), digest_size=16).digest() if salt else digest


Content = str | tuple[str | Media, ...]
"""The content of a message: text, or text with images and clips of sound in their order."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, to be written out by the model's chat template.

    Attributes:
        messages: role/content mappings, as templates read them.
        tools: functions that the model may call, in OpenAI's shape.
        tool_choice: "auto", "none", "required", or a named function.
        parallel_tool_calls: whether an answer may call more than one.
        options: what else the template is given, such as enable_thinking.
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text to continue."""

    text: str


@dataclass(frozen=True, slots=True)
class Written:
    """A prompt that was written out already, special tokens included, with images and clips of sound in their order.

    For tasks whose form no chat template has, such as transcription by some models. As in the messages of a chat, what
    names an image or a clip may stand in its place until it is loaded.
    """

    parts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids to continue."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NamedTool:
    """The function that must be called."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | NamedTool


@dataclass(frozen=True, slots=True)
class Infill:
    """Text with a gap, to be filled."""

    before: str
    behind: str


Prompt = Chat | Text | Tokens | Infill | Written


def media_of(prompt: Prompt) -> list[Media]:
    """The images and clips of sound in ``prompt``, in their order."""
    match prompt:
        case Written(parts):
            contents: list[Any] = [parts]
        case Chat(messages):
            contents = [message.get("content") for message in messages]
        case _:
            contents = []
    return [part for content in contents if isinstance(content, tuple) for part in content if isinstance(part, Media)]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. None means: not said here, the next source of defaults decides.

    temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 are off. logit_bias adds to the logit of a token id. Penalties
    look back over penalty_window tokens, over all where it is below 0.

    A token that would go on with a repetition of n tokens loses dry_multiplier * dry_base ** (n - dry_allowed_length),
    where n is at least the last of them; no repetition goes beyond one of the dry_sequence_breakers.
    Source: https://github.com/oobabooga/text-generation-webui/pull/5677.
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

    def over(self, defaults: Sampling) -> Sampling:
        """Fill what is unsaid here from ``defaults``."""
        unsaid = {f.name: getattr(defaults, f.name) for f in fields(self) if getattr(self, f.name) is None}
        return replace(self, **unsaid)
