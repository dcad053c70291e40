"""From what a request says of its images to their pixels."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal, TypeVar

from starlette.types import Receive

from modelyard.api.media.images import decode
from modelyard.api.media.fetch import Fetcher
from modelyard.api.media.local import is_local, read_local
from modelyard.api.reply import while_connected
from modelyard.engine.question import Chat, Image
from modelyard.errors import InvalidRequest, TakesNoImages
from modelyard.yard.requests import Request, TokenizeRequest
from modelyard.yard.yard import Yard

_Asked = TypeVar("_Asked", Request, TokenizeRequest)

# Of all clients together, fetched or decoded at the same time.
AT_ONCE: Final = 8

# OpenAI scales an image of low detail to so many pixels a side.
LOW_DETAIL_EDGE: Final = 512


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image as a request names it: a data URL, an http(s) URL, a file URL or an absolute path.

    detail "low" scales it down further; param is the field that it stands in.
    """

    url: str
    detail: Literal["auto", "low", "high"]
    param: str


class ImageLoader:
    """Loads the images of requests to ``yard``."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._fetcher = Fetcher()
        self._places = asyncio.Semaphore(AT_ONCE)

    async def loaded(self, request: Request, receive: Receive) -> Request:
        """``request`` with its images in the place of references; given up when the client leaves.

        Raises:
            InvalidRequest: an image cannot be had or decoded, or there are too many.
            UnsupportedOperation: the model takes none.
            ModelNotFound, ModelRequired: there is no such model.
        """
        if not _all_references(request):
            return request
        loaded: list[Request] = []

        async def load() -> None:
            loaded.append(await self.seen(request))

        await while_connected(receive, load())
        if not loaded:
            raise InvalidRequest("The client left while its images were fetched.")
        return loaded[0]

    async def seen(self, request: _Asked) -> _Asked:
        """As ``loaded``, for as long as it takes."""
        references = _all_references(request)
        if not references or not isinstance(request.prompt, Chat):
            return request
        images = await self.images(references, request.model)
        messages = tuple(_with_images(message, images) for message in request.prompt.messages)
        return replace(request, prompt=replace(request.prompt, messages=messages))

    async def images(self, references: list[ImageReference], model: str | None) -> dict[ImageReference, Image]:
        """The images that ``references`` name, for ``model``, by id or alias.

        Raises:
            as ``loaded``.
        """
        configured = self._yard.configured(model)
        if self._yard.model(configured.id).can_see is False:
            raise TakesNoImages(configured.id, references[0].param)
        limits = configured.multimodal
        if len(references) > limits.max_num_images:
            raise InvalidRequest(
                f"The request has {len(references)} images, more than the {limits.max_num_images} that this model "
                "takes at once. Leave some out; whoever runs the server can set max_num_images in "
                "[models.multimodal].",
                references[limits.max_num_images].param,
            )
        edge = limits.longest_edge
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {one: group.create_task(self._load(one, edge)) for one in references}
        except BaseExceptionGroup as failed:
            # The first says what to do.
            raise failed.exceptions[0] from None
        return {one: task.result() for one, task in tasks.items()}

    async def _load(self, reference: ImageReference, edge: int) -> Image:
        url, param = reference.url, reference.param
        if reference.detail == "low":
            edge = min(edge, LOW_DETAIL_EDGE)
        server = self._yard.config.server
        async with self._places:
            if url[:5].lower() == "data:":
                read = partial(_of_data_url, url, param)
            elif url[:7].lower() == "http://" or url[:8].lower() == "https://":
                data = await self._fetcher.fetch(url, param, may_be_private=server.allow_private_image_urls)
                read = partial(bytes, data)
            elif is_local(url):
                read = partial(read_local, url, param, server.image_folders)
            else:
                raise InvalidRequest(
                    "The URL must begin with data:, http://, https:// or file://. A data URL is "
                    "data:image/png;base64, and the file in base64.",
                    param,
                )
            return await asyncio.to_thread(lambda: decode(read(), param, edge))


def _all_references(request: Request | TokenizeRequest) -> list[ImageReference]:
    if not isinstance(request.prompt, Chat):
        return []
    return [part for message in request.prompt.messages for part in _references(message)]


def _references(message: Mapping[str, Any]) -> list[ImageReference]:
    content = message["content"]
    return [] if isinstance(content, str) else [part for part in content if isinstance(part, ImageReference)]


def _with_images(message: Mapping[str, Any], images: Mapping[ImageReference, Image]) -> Mapping[str, Any]:
    content = message["content"]
    if isinstance(content, str):
        return message
    return {**message, "content": tuple(part if isinstance(part, str) else images[part] for part in content)}


def _of_data_url(url: str, param: str) -> bytes:
    head, comma, encoded = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise InvalidRequest("The data URL must have the form data:image/png;base64, and the file in base64.", param)
    try:
        # Line breaks, which some tools put in, are all that may be there beside the digits.
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("What follows the comma of the data URL is not base64.", param) from None
