"""A conversation in the terminal, with the default model of a configuration, else its first."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from rich.console import Console

from modelyard.api.media.images import decode
from modelyard.cli.loading import start_visibly
from modelyard.config import Config, default_model
from modelyard.engine.question import Chat, Content, Image
from modelyard.errors import InvalidRequest, ModelyardError
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.loop_thread import LoopThread
from modelyard.yard.requests import Request
from modelyard.yard.yard import Yard

_HELP = "Ctrl-C stops an answer, Ctrl-D leaves."


def chat(config: Config, question: str | None, images: Sequence[Path] = ()) -> None:
    """Answer ``question`` about ``images``, if any; with None, hold a conversation until the input ends.

    Raises:
        ConfigError, ModelLoadFailed: as Yard.start.
        UnsupportedOperation: it is a model that does not converse.
        InvalidRequest: an image cannot be read or decoded; nothing was loaded.
        ModelyardError: the one question could not be answered.
    """
    logging.basicConfig(level=logging.WARNING)
    edge = config.models[0].multimodal.longest_edge
    seen = [_image(path, edge) for path in images]
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        # The models have a thread of their own, so that this one can wait for the keyboard and be interrupted.
        with contextlib.closing(LoopThread(lambda: _started(config, console), "modelyard")) as models:
            model = default_model(config) or config.models[0].id
            models.call(lambda there: there.yard.check(model, "text"))
            if question is not None:
                asked = _turn("user", (*seen, question) if seen else question)
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


def _image(path: Path, longest_edge: int) -> Image:
    try:
        return decode(path.read_bytes(), str(path), longest_edge)
    except OSError as failure:
        raise InvalidRequest(f"{path}: The image cannot be read: {failure.strerror}. Check its name.") from failure
    except InvalidRequest as refused:
        raise InvalidRequest(f"{path}: {refused}") from refused
