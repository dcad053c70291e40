"""A conversation in the terminal, with the default model of a configuration, else its first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from rich.console import Console

from modelyard.api.images.decode import decode
from modelyard.cli.loading import start_visibly
from modelyard.config import Config, default_model
from modelyard.engine.messages import Chat, Content, Image
from modelyard.errors import InvalidRequest, ModelyardError
from modelyard.yard.yard import Request, Yard

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
    with _event_loop() as loop:
        # The loop has a thread of its own, so that this one can wait for the keyboard and be interrupted.
        yard = Yard(config)
        try:
            _result(asyncio.run_coroutine_threadsafe(start_visibly(yard, console), loop))
            model = default_model(config) or config.models[0].id
            _result(asyncio.run_coroutine_threadsafe(yard.check(model, "text"), loop))
            if question is not None:
                asked = _turn("user", (*seen, question) if seen else question)
                _result(asyncio.run_coroutine_threadsafe(_say(yard, model, [asked]), loop))
            else:
                _converse(yard, model, loop, console)
        except KeyboardInterrupt:
            sys.exit(130)
        finally:
            asyncio.run_coroutine_threadsafe(yard.close(), loop).result()


@contextlib.contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="event loop", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _converse(yard: Yard, model: str, loop: asyncio.AbstractEventLoop, console: Console) -> None:
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
        saying = asyncio.run_coroutine_threadsafe(_say(yard, model, messages), loop)
        try:
            messages.append(_turn("assistant", _result(saying)))
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


def _result(future: Future[Any]) -> Any:
    """The future's result; what it does is cancelled when the user interrupts."""
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        raise
