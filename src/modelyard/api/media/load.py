"""Loads the images and the sound that a request refers to, as pixels and samples."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from starlette.types import Receive

from modelyard.api.media.decoders import MAX_AT_ONCE, MAX_DECODE_S, Digits, EncodedFile, MediaDecoders
from modelyard.api.media.fair_limiter import FairLimiter
from modelyard.api.media.fetch import Fetcher
from modelyard.api.media.images import MAX_PIXELS
from modelyard.api.media.kinds import AUDIO, IMAGE, MediaKind
from modelyard.api.media.local import is_local, read_local
from modelyard.api.serving.request_memory import LEASE
from modelyard.api.serving.streaming import while_connected
from modelyard.config.model import Multimodal
from modelyard.errors import InvalidRequest, MediaUndecoded
from modelyard.hub import Modalities
from modelyard.protocol.prompts import Chat, Detail, Image, Media, Written
from modelyard.system.bounded.cancellation import Cancellation
from modelyard.yard.requests.context import current_caller
from modelyard.yard.requests.requests import Request, TokenizeRequest
from modelyard.yard.yard import Yard

_Request = TypeVar("_Request", Request, TokenizeRequest)

# Files of all clients that are fetched, or held in memory until they are decoded, at the same time.
MAX_FETCHES: Final = 8

MAX_WAIT_S: Final = 60.0
"""Default of ``MediaLoader``."""

# Characters of a data URL before its digits; tools write a few dozen.
MAX_HEAD_CHARS: Final = 1024

# OpenAI scales an image of low detail to this many pixels a side.
LOW_DETAIL_EDGE: Final = 512


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A reference to an image: a data URL, an http(s) URL, a file URL or an absolute path.

    Attributes:
        url: the reference.
        detail: the resolution for the model.
        param: the field of the request that holds the reference.
    """

    url: str
    detail: Detail
    param: str


@dataclass(frozen=True, slots=True)
class AudioReference:
    """A reference to a clip of sound, in the forms of ``ImageReference``.

    Attributes:
        url: the reference.
        param: the field of the request that holds the reference.
    """

    url: str
    param: str


@dataclass(frozen=True, slots=True)
class AudioFile:
    """A clip of sound that was uploaded with its request."""

    data: bytes
    param: str


Reference = ImageReference | AudioReference | AudioFile


class MediaLoader:
    """Loads the images and the sound of requests to ``yard``.

    Args:
        yard: the models.
        decoders: the decoders; None: new ones.
        max_wait_s: how long a request with one file may take to load it; ``MAX_DECODE_S`` more for each further file.
    """

    def __init__(self, yard: Yard, decoders: MediaDecoders | None = None, max_wait_s: float = MAX_WAIT_S) -> None:
        self._yard, self._max_wait_s = yard, max_wait_s
        self._decoders = MediaDecoders() if decoders is None else decoders
        self._fetcher = Fetcher()
        # Separate from decoding, because another server decides how long a fetch takes.
        self._fetches = FairLimiter(MAX_FETCHES)
        self._decodes = FairLimiter(MAX_AT_ONCE)

    async def loaded(self, request: Request, receive: Receive) -> Request:
        """Return ``request`` with images and sound in place of references. A disconnect of the client cancels it.

        Raises:
            InvalidRequest: a file cannot be fetched or decoded, or there are too many.
            UnsupportedOperation: the model takes no images or no sound.
            ModelNotFound, ModelRequired: the model does not exist, or none is named.
        """
        if not _references(request):
            return request
        loaded: list[Request] = []

        async def load() -> None:
            loaded.append(await self.resolved(request))

        await while_connected(receive, load())
        if not loaded:
            raise InvalidRequest("The client left while its images or its sound were fetched.")
        return loaded[0]

    async def resolved(self, request: _Request) -> _Request:
        """Return ``request`` with images and sound in place of references; raises the errors of ``loaded``."""
        references = _references(request)
        if not references:
            return request
        # Matched by order: a lookup by URL would hash megabytes.
        media = iter(await self._media(references, request.model))
        match request.prompt:
            case Chat() as chat:
                messages = tuple(_with_media(message, media) for message in chat.messages)
                return replace(request, prompt=replace(chat, messages=messages))
            case Written(parts):
                return replace(request, prompt=Written(_replaced(parts, media)))
        return request

    async def _media(self, references: Sequence[Reference], model: str | None) -> list[Media]:
        """Load ``references``, in their order, for ``model``, by id or alias.

        Raises:
            MediaUndecoded: the files of other requests take too long.
            ModelyardError: as ``loaded``.
        """
        configured = self._yard.configured(model)
        images = [reference for reference in references if isinstance(reference, ImageReference)]
        clips = [reference for reference in references if not isinstance(reference, ImageReference)]
        modalities = await self._yard.checks.check_modalities(
            configured.id, image=images[0].param if images else None, sound=clips[0].param if clips else None
        )
        limits = configured.multimodal
        _check_number(images, limits.max_num_images, "images", "max_num_images")
        _check_number(clips, limits.max_num_audios, "clips of sound", "max_num_audios")
        modalities, lease = modalities or Modalities(), LEASE.get()
        max_bytes = len(images) * max_image_bytes(limits) + len(clips) * max_sound_bytes(limits, modalities)
        if lease is not None:
            # Reserved before any file is loaded: a small file may unpack to many bytes, and decoding may have to wait.
            await lease.add(max_bytes)
        max_wait_s = self._max_wait_s + MAX_DECODE_S * (len(references) - 1)
        try:
            # Each decode is bounded, but not how many files of other requests go first.
            async with asyncio.timeout(max_wait_s), asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._load(one, limits, modalities)) for one in references]
        except TimeoutError:
            raise MediaUndecoded(
                "image" if images else "audio", f"the files of other requests took more than {max_wait_s:g} s"
            ) from None
        except BaseExceptionGroup as failed:
            # The first error is enough for the client.
            raise failed.exceptions[0] from None
        media = [task.result() for task in tasks]
        if lease is not None:
            lease.give_back(max_bytes - sum(map(_bytes_of, media)))
        return media

    async def _load(self, reference: Reference, limits: Multimodal, modalities: Modalities) -> Media:
        owner = current_caller().place_owner

        async def decode(read: Callable[[], EncodedFile]) -> Media:
            cancellation = Cancellation()
            work = partial(self._decode, reference, read, limits, modalities, cancellation)
            return await self._decodes.run(owner, work, cancellation.cancel)

        if not isinstance(reference, AudioFile) and _is_from_web(reference.url):
            async with self._fetches.place(owner):
                fetched = await self._fetch(reference)
                return await decode(lambda: fetched)
        return await decode(self._file_reader(reference))

    def _decode(
        self,
        reference: Reference,
        read: Callable[[], EncodedFile],
        limits: Multimodal,
        modalities: Modalities,
        cancellation: Cancellation,
    ) -> Media:
        """Return the image or the clip in the file that ``read`` returns. Runs on a thread."""
        if isinstance(reference, ImageReference):
            edge = limits.longest_edge
            if reference.detail == "low":
                edge = min(edge, LOW_DETAIL_EDGE)
            return self._decoders.image(read(), reference.param, edge, reference.detail, cancellation)
        return self._decoders.audio(
            read(), reference.param, modalities.sample_rate, limits.max_audio_seconds, cancellation
        )

    async def _fetch(self, reference: ImageReference | AudioReference) -> bytes:
        server = self._yard.config.server
        kind, may_be_private = AUDIO, server.allow_private_audio_urls
        if isinstance(reference, ImageReference):
            kind, may_be_private = IMAGE, server.allow_private_image_urls
        return await self._fetcher.fetch(reference.url, reference.param, kind, may_be_private=may_be_private)

    def _file_reader(self, reference: Reference) -> Callable[[], EncodedFile]:
        """Return a function that reads a file that is in the request or on this machine; it runs on a thread."""
        if isinstance(reference, AudioFile):
            return lambda: reference.data
        url, param, server = reference.url, reference.param, self._yard.config.server
        if isinstance(reference, ImageReference):
            kind, folders = IMAGE, server.image_folders
        else:
            kind, folders = AUDIO, server.audio_folders
        if url[:5].lower() == "data:":
            return partial(_digits, url, param, kind)
        if is_local(url):
            return partial(read_local, url, param, kind, folders)
        raise InvalidRequest(
            "The URL must begin with data:, http://, https:// or file://. A data URL is "
            f"{kind.data_url} and the file in base64.",
            param,
        )


def max_image_bytes(limits: Multimodal) -> int:
    """Return an upper bound of the memory of a decoded image: three bytes a pixel."""
    return 3 * min(limits.longest_edge**2, MAX_PIXELS)


def max_sound_bytes(limits: Multimodal, modalities: Modalities) -> int:
    """Return an upper bound of the memory of a decoded clip: four bytes a sample."""
    return int(4 * limits.max_audio_seconds * (modalities.sample_rate or 0))


def _bytes_of(media: Media) -> int:
    return len(media.pixels) if isinstance(media, Image) else len(media.samples)


def _is_from_web(url: str) -> bool:
    return url[:7].lower() == "http://" or url[:8].lower() == "https://"


def _check_number(references: Sequence[Reference], limit: int, what: str, key: str) -> None:
    if len(references) > limit:
        raise InvalidRequest(
            f"The request has {len(references)} {what}, more than the {limit} that this model takes at once. Leave "
            f"some out, or raise {key} in [models.multimodal].",
            references[limit].param,
        )


def _references(request: Request | TokenizeRequest) -> list[Reference]:
    match request.prompt:
        case Chat(messages):
            contents: list[Any] = [message["content"] for message in messages]
        case Written(parts):
            contents = [parts]
        case _:
            contents = []
    found = (part for content in contents if isinstance(content, tuple) for part in content)
    return [part for part in found if isinstance(part, Reference)]


def _with_media(message: Mapping[str, Any], media: Iterator[Media]) -> Mapping[str, Any]:
    content = message["content"]
    return message if isinstance(content, str) else {**message, "content": _replaced(content, media)}


def _replaced(parts: Sequence[Any], media: Iterator[Media]) -> tuple[str | Media, ...]:
    """Return ``parts`` with the next item of ``media`` in place of each reference."""
    return tuple(next(media) if isinstance(part, Reference) else part for part in parts)


def _digits(url: str, param: str, kind: MediaKind) -> Digits:
    comma = url.find(",", 0, MAX_HEAD_CHARS)
    if comma < 0 or not url[:comma].lower().endswith(";base64"):
        raise InvalidRequest(f"The data URL must have the form {kind.data_url} and the file in base64.", param)
    return Digits(url, comma + 1)
