"""From what a request says of its images and its sound to pixels and samples."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from starlette.types import Receive

from modelyard.api.media.decoders import MAX_AT_ONCE, Digits, EncodedFile, MediaDecoders
from modelyard.api.media.fetch import Fetcher
from modelyard.api.media.images import MAX_PIXELS
from modelyard.api.media.kinds import AUDIO, IMAGE, MediaKind
from modelyard.api.media.local import is_local, read_local
from modelyard.api.media.places import Places
from modelyard.api.serving.request_memory import LEASE
from modelyard.api.serving.streaming import while_connected
from modelyard.config.schema import Multimodal
from modelyard.errors import InvalidRequest
from modelyard.hub import Senses
from modelyard.protocol.prompts import Chat, Detail, Image, Media, Written
from modelyard.system.bounded.cancellation import Cancellation
from modelyard.yard.requests.context import current_caller
from modelyard.yard.requests.requests import Request, TokenizeRequest
from modelyard.yard.yard import Yard

_Asked = TypeVar("_Asked", Request, TokenizeRequest)

# Of all clients together, fetched at the same time, and held in memory until they are decoded.
AT_ONCE: Final = 8

# Of a data URL, before its digits: those of files have some dozens.
MAX_HEAD_CHARS: Final = 1024

# OpenAI scales an image of low detail to so many pixels a side.
LOW_DETAIL_EDGE: Final = 512


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image as a request names it: a data URL, an http(s) URL, a file URL or an absolute path.

    detail says how closely the model is to look; param is the field that it stands in.
    """

    url: str
    detail: Detail
    param: str


@dataclass(frozen=True, slots=True)
class AudioReference:
    """A clip of sound as a request names it: by a URL or a path as an image.

    param is the field that it stands in.
    """

    url: str
    param: str


@dataclass(frozen=True, slots=True)
class AudioFile:
    """A clip of sound that came with its request, as a file."""

    data: bytes
    param: str


Reference = ImageReference | AudioReference | AudioFile


class MediaLoader:
    """Loads the images and the sound of requests to ``yard``.

    Args:
        decoders: decode them; None: its own.
    """

    def __init__(self, yard: Yard, decoders: MediaDecoders | None = None) -> None:
        self._yard = yard
        self._decoders = MediaDecoders() if decoders is None else decoders
        self._fetcher = Fetcher()
        # A fetch takes as long as another server likes: it keeps nobody from decoding.
        self._fetches = Places(AT_ONCE)
        self._places = Places(MAX_AT_ONCE)

    async def loaded(self, request: Request, receive: Receive) -> Request:
        """``request`` with images and sound in the place of references; given up when the client leaves.

        Raises:
            InvalidRequest: one of them cannot be had or decoded, or there are too many.
            UnsupportedOperation: the model takes none.
            ModelNotFound, ModelRequired: there is no such model.
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

    async def resolved(self, request: _Asked) -> _Asked:
        """As ``loaded``, for as long as it takes."""
        references = _references(request)
        if not references:
            return request
        # By their order: to look one up by its URL would read megabytes of it.
        media = iter(await self._media(references, request.model))
        match request.prompt:
            case Chat() as chat:
                messages = tuple(_with_media(message, media) for message in chat.messages)
                return replace(request, prompt=replace(chat, messages=messages))
            case Written(parts):
                return replace(request, prompt=Written(_replaced(parts, media)))
        return request

    async def _media(self, references: Sequence[Reference], model: str | None) -> list[Media]:
        """What ``references`` name, in their order, for ``model``, by id or alias.

        Raises:
            as ``loaded``.
        """
        configured = self._yard.configured(model)
        images = [reference for reference in references if isinstance(reference, ImageReference)]
        clips = [reference for reference in references if not isinstance(reference, ImageReference)]
        senses = await self._yard.check_senses(
            configured.id, image=images[0].param if images else None, sound=clips[0].param if clips else None
        )
        limits = configured.multimodal
        _check_number(images, limits.max_num_images, "images", "max_num_images")
        _check_number(clips, limits.max_num_audios, "clips of sound", "max_num_audios")
        senses, lease = senses or Senses(), LEASE.get()
        most_bytes = len(images) * max_image_bytes(limits) + len(clips) * max_sound_bytes(limits, senses)
        if lease is not None:
            # Before any of them is there: a small file may unpack to much, and a request may wait long for its turn.
            await lease.add(most_bytes)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._load(one, limits, senses)) for one in references]
        except BaseExceptionGroup as failed:
            # The first says what to do.
            raise failed.exceptions[0] from None
        media = [task.result() for task in tasks]
        if lease is not None:
            lease.give_back(most_bytes - sum(map(_bytes_of, media)))
        return media

    async def _load(self, reference: Reference, limits: Multimodal, senses: Senses) -> Media:
        owner = current_caller().place_owner

        async def decoded(read: Callable[[], EncodedFile]) -> Media:
            cancellation = Cancellation()
            work = partial(self._decoded, reference, read, limits, senses, cancellation)
            return await self._places.run(owner, work, cancellation.cancel)

        if not isinstance(reference, AudioFile) and _is_from_web(reference.url):
            async with self._fetches.place(owner):
                fetched = await self._fetched(reference)
                return await decoded(lambda: fetched)
        return await decoded(self._file(reference))

    def _decoded(
        self,
        reference: Reference,
        read: Callable[[], EncodedFile],
        limits: Multimodal,
        senses: Senses,
        cancellation: Cancellation,
    ) -> Media:
        """The image or the clip in the file that ``read`` gives. Runs on a thread."""
        if isinstance(reference, ImageReference):
            edge = limits.longest_edge
            if reference.detail == "low":
                edge = min(edge, LOW_DETAIL_EDGE)
            return self._decoders.image(read(), reference.param, edge, reference.detail, cancellation)
        return self._decoders.audio(read(), reference.param, senses.sample_rate, limits.max_audio_seconds, cancellation)

    async def _fetched(self, reference: ImageReference | AudioReference) -> bytes:
        server = self._yard.config.server
        kind, may_be_private = AUDIO, server.allow_private_audio_urls
        if isinstance(reference, ImageReference):
            kind, may_be_private = IMAGE, server.allow_private_image_urls
        return await self._fetcher.fetch(reference.url, reference.param, kind, may_be_private=may_be_private)

    def _file(self, reference: Reference) -> Callable[[], EncodedFile]:
        """What gives a file that is here, on a thread."""
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
    """Memory of an image as it is kept for a model with these limits, at the most: three bytes a pixel."""
    return 3 * min(limits.longest_edge**2, MAX_PIXELS)


def max_sound_bytes(limits: Multimodal, senses: Senses) -> int:
    """Memory of a clip of sound as it is kept, at the most: samples of four bytes."""
    return int(4 * limits.max_audio_seconds * (senses.sample_rate or 0))


def _bytes_of(media: Media) -> int:
    return len(media.pixels) if isinstance(media, Image) else len(media.samples)


def _is_from_web(url: str) -> bool:
    return url[:7].lower() == "http://" or url[:8].lower() == "https://"


def _check_number(references: Sequence[Reference], most: int, what: str, key: str) -> None:
    if len(references) > most:
        raise InvalidRequest(
            f"The request has {len(references)} {what}, more than the {most} that this model takes at once. Leave some "
            f"out; whoever runs the server can set {key} in [models.multimodal].",
            references[most].param,
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
    """``parts`` with the next of ``media`` in the place of each reference."""
    return tuple(next(media) if isinstance(part, Reference) else part for part in parts)


def _digits(url: str, param: str, kind: MediaKind) -> Digits:
    comma = url.find(",", 0, MAX_HEAD_CHARS)
    if comma < 0 or not url[:comma].lower().endswith(";base64"):
        raise InvalidRequest(f"The data URL must have the form {kind.data_url} and the file in base64.", param)
    return Digits(url, comma + 1)
