"""A conversation in the terminal, with the default model of a configuration, else its first."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from modelyard.api.media.audio import decode as decode_audio
from modelyard.api.media.images import decode as decode_image
from modelyard.cli.loading import start_visibly
from modelyard.config import Config, default_model
from modelyard.config.schema import Multimodal
from modelyard.errors import InvalidRequest, ModelyardError
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.loop_thread import LoopThread
from modelyard.protocol.prompts import Audio, Chat, Content, Image, Media
from modelyard.yard.requests.requests import Request
from modelyard.yard.yard import Yard

_Decoded = TypeVar("_Decoded", Image, Audio)

# Samples in a second: more than the encoders of nearly all models take.
_RATE = 24_000

_HELP = "Ctrl-C stops an answer, Ctrl-D leaves."


def chat(config: Config, question: str | None, images: Sequence[Path] = (), clips: Sequence[Path] = ()) -> None:
    """Answer ``question`` about ``images`` and ``clips`` of sound, if any; with None, hold a conversation.

    Raises:
        ConfigError, ModelLoadFailed: as Yard.start.
        UnsupportedOperation: it is a model that does not converse.
        InvalidRequest: an image or a clip cannot be read or decoded; nothing was loaded.
        ModelyardError: the one question could not be answered.
    """
    logging.basicConfig(level=logging.WARNING)
    limits = config.models[0].multimodal
    given: list[Media] = [_image(path, limits) for path in images]
    given += [_audio(path, limits) for path in clips]
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        # The models have a thread of their own, so that this one can wait for the keyboard and be interrupted.
        with contextlib.closing(LoopThread(lambda: _started(config, console), "modelyard")) as models:
            model = default_model(config) or config.models[0].id
            models.call(lambda there: there.yard.check(model, "text"))
            if question is not None:
                asked = _turn("user", (*given, question) if given else question)
                models.call(lambda there: _say(there.yard, model, [asked]))
            else:
                _converse(models, model, console)
    except KeyboardInterrupt:
        sys.exit(130)


@contextlib.asynccontextmanager
async def _started(config: Config, console: Console) -> AsyncIterator[AsyncModel]:
    async with contextlib.aclosing(AsyncModel(config)) as model:
        await start_visibly(model, console)
        yield model


def _converse(models: LoopThread[AsyncModel], model: str, console: Console) -> None:
    with contextlib.suppress(ImportError):
        # Gives input() line editing and a history.
        import readline  # noqa: F401
    console.print(f"[bold]{model}[/]  [dim]{_HELP}[/]")
    messages: list[dict[str, Content]] = []
    while True:
        try:
            text = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            console.print(f"\n[dim]{_HELP}[/]")
            continue
        if not text:
            continue
        messages.append(_turn("user", text))
        try:
            messages.append(_turn("assistant", models.call(lambda there: _say(there.yard, model, messages))))
        except KeyboardInterrupt:
            console.print("\n[dim](stopped)[/]")
            messages.pop()
        except ModelyardError as error:
            console.print(f"[red]{type(error).code}:[/] ", end="")
            console.print(str(error), markup=False)
            messages.pop()


async def _say(yard: Yard, model: str, messages: list[dict[str, Content]]) -> str:
    pieces = []
    async with yard.generate(Request(Chat(tuple(messages)), model)) as generation:
        async for text in generation:
            pieces.append(text)
            print(text, end="", flush=True)  # noqa: T201
    print()  # noqa: T201
    return "".join(pieces)


def _turn(role: str, content: Content) -> dict[str, Content]:
    return {"role": role, "content": content}


def _image(path: Path, limits: Multimodal) -> Image:
    return _decoded(path, "image", lambda data: decode_image(data, str(path), limits.longest_edge))


def _audio(path: Path, limits: Multimodal) -> Audio:
    # Which rate the model takes is known once it is loaded; its engine resamples.
    return _decoded(path, "audio", lambda data: decode_audio(data, str(path), _RATE, limits.max_audio_seconds))


def _decoded(path: Path, what: str, decode: Callable[[bytes], _Decoded]) -> _Decoded:
    try:
        return decode(path.read_bytes())
    except OSError as failure:
        raise InvalidRequest(f"{path}: The {what} cannot be read: {failure.strerror}. Check its name.") from failure
    except InvalidRequest as refused:
        raise InvalidRequest(f"{path}: {refused}") from refused
