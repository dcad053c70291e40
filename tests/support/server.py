"""A real server for tests: the real yard and the real HTTP stack, on a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import openai
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from modelyard.agent.agent import Agent
from modelyard.agent.tools import ToolSource
from modelyard.api.app import create_app
from modelyard.api.server.log_ring import LogRing
from modelyard.config import Config, read_keys
from modelyard.hub import Stores
from modelyard.inprocess.http_server.server import HttpServer
from modelyard.inprocess.listen import listen
from modelyard.yard.residency.policy import WaitPolicy
from modelyard.yard.yard import Yard

WAIT_S = 60.0

T = TypeVar("T")


class Underway:
    """Around an application ``app``: how many of its requests are not done yet."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self._count = 0
        self._changed = threading.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._changed:
            self._count += 1
        try:
            await self.app(scope, receive, send)
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def ends(self) -> bool:
        """Whether all requests are done in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, WAIT_S)


@dataclass
class RunningServer:
    """A yard behind HTTP on loopback, on an event loop of its own."""

    url: str
    yard: Yard
    loop: asyncio.AbstractEventLoop
    underway: Underway

    def settle(self) -> None:
        """Wait until all requests are done: a client has its answer before that is logged and counted."""
        assert self.underway.ends(), "a request is still underway"

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT_S)

    def read(self, look: Callable[[], T]) -> T:
        """What ``look`` returns on the server's event loop."""

        async def looking() -> T:
            return look()

        return self.call(looking())

    @contextlib.contextmanager
    def client(self, **options: Any) -> Iterator[openai.OpenAI]:
        """The official client; it does not retry, so that every answer is seen."""
        with openai.OpenAI(
            base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=WAIT_S, **options
        ) as client:
            yield client

    @contextlib.asynccontextmanager
    async def async_client(self) -> Any:
        async with openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=WAIT_S
        ) as client:
            yield client

    def post(self, path: str, body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=WAIT_S)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=WAIT_S)


@contextlib.contextmanager
def serving(
    config: Config,
    make_engine: Any = None,
    policy: WaitPolicy | None = None,
    read_config: Callable[[], Config] | None = None,
    stores: Stores | None = None,
    log_ring: LogRing | None = None,
    tools: Sequence[ToolSource] = (),
) -> Iterator[RunningServer]:
    """Serve ``config`` for the length of the context."""
    ready: list[RunningServer] = []
    failures: list[BaseException] = []
    started = threading.Event()
    stop: list[Callable[[], None]] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        stop.append(lambda: loop.call_soon_threadsafe(stopping.set))
        yard = Yard(config, make_engine, policy, stores)
        await yard.start()
        app = create_app(yard, read_keys(config), read_config, log_ring=log_ring, agent=Agent.of(tools))
        underway = Underway(app)
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        server = HttpServer(underway, listener, config.server, models=len(config.models), drain_s=5)
        async with asyncio.timeout(WAIT_S):
            await server.start()
        ready.append(RunningServer(f"http://127.0.0.1:{port}", yard, loop, underway))
        started.set()
        await stopping.wait()
        server.ask_to_stop()
        if log_ring is not None:
            log_ring.dismiss()
        await yard.close()
        await server.serving
        await app.state.mcp.aclose()

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as failure:
            failures.append(failure)
        finally:
            started.set()

    thread = threading.Thread(target=main, name="test server")
    thread.start()
    try:
        assert started.wait(WAIT_S)
        if failures:
            raise failures[0]
        yield ready[0]
    finally:
        for ask in stop:
            with contextlib.suppress(RuntimeError):
                ask()
        thread.join(WAIT_S)
        assert not thread.is_alive()
    if failures:
        raise failures[0]
