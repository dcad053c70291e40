"""Chats in the terminal with the default model of a configuration, else its first."""

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
from modelyard.config.model import Multimodal
from modelyard.errors import InvalidRequest, ModelyardError
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.loop_thread import LoopThread
from modelyard.protocol.prompts import Audio, Chat, Content, Image, Media
from modelyard.yard.requests.requests import Request
from modelyard.yard.yard import Yard

_Decoded = TypeVar("_Decoded", Image, Audio)

# Samples per second, more than the encoders of nearly all models take.
_SAMPLE_RATE = 24_000

_HELP = "Ctrl-C stops an answer, Ctrl-D leaves."


def chat(config: Config, question: str | None, images: Sequence[Path] = (), clips: Sequence[Path] = ()) -> None:
    """Answer ``question`` about ``images`` and ``clips`` of sound; without a question, hold a conversation.

    Raises:
        ConfigError, ModelLoadFailed: see Yard.start.
        UnsupportedOperation: the model does not generate text.
        InvalidRequest: an image or a clip cannot be read or decoded; no model was loaded.
        ModelyardError: the question could not be answered.
    """
    logging.basicConfig(level=logging.WARNING)
    limits = config.models[0].multimodal
    media: list[Media] = [_image(path, limits) for path in images]
    media += [_audio(path, limits) for path in clips]
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        # The models run on a thread of their own, so that this thread can wait for the keyboard and be interrupted.
        with contextlib.closing(LoopThread(lambda: _started(config, console), "modelyard")) as models:
            model = default_model(config) or config.models[0].id
            models.call(lambda running: running.yard.check(model, "text"))
            if question is not None:
                message = _message("user", (*media, question) if media else question)
                models.call(lambda running: _print_answer(running.yard, model, [message]))
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
        # Importing readline adds line editing and a history to input().
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
        messages.append(_message("user", text))
        try:
            answer = models.call(lambda running: _print_answer(running.yard, model, messages))
            messages.append(_message("assistant", answer))
        except KeyboardInterrupt:
            console.print("\n[dim](stopped)[/]")
            messages.pop()
        except ModelyardError as error:
            console.print(f"[red]{type(error).code}:[/] ", end="")
            console.print(str(error), markup=False)
            messages.pop()


async def _print_answer(yard: Yard, model: str, messages: list[dict[str, Content]]) -> str:
    pieces = []
    async with yard.generate(Request(Chat(tuple(messages)), model)) as generation:
        async for text in generation:
            pieces.append(text)
            print(text, end="", flush=True)  # noqa: T201
    print()  # noqa: T201
    return "".join(pieces)


def _message(role: str, content: Content) -> dict[str, Content]:
    return {"role": role, "content": content}


def _image(path: Path, limits: Multimodal) -> Image:
    return _decoded(path, "image", lambda data: decode_image(data, str(path), limits.longest_edge))


def _audio(path: Path, limits: Multimodal) -> Audio:
    # The model's sample rate is known only once it is loaded; its engine resamples.
    return _decoded(path, "audio", lambda data: decode_audio(data, str(path), _SAMPLE_RATE, limits.max_audio_seconds))


def _decoded(path: Path, what: str, decode: Callable[[bytes], _Decoded]) -> _Decoded:
    try:
        return decode(path.read_bytes())
    except OSError as failure:
        raise InvalidRequest(f"{path}: The {what} cannot be read: {failure.strerror}. Check its name.") from failure
    except InvalidRequest as refused:
        raise InvalidRequest(f"{path}: {refused}") from refused
