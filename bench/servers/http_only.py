"""A server with no model behind it. ``http_only.py modelyard|uvicorn PORT WEIGHTS``.

An engine that computes nothing says one word for every stream each STEP_S, and answers requests for one token at once.
Under "modelyard" it is behind all of Modelyard; under "uvicorn" the frames are made beforehand, and written by as
little as serves them. For each line of input it says how much processor time it has used, its engine's excluded.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
import uvloop

from modelyard.api.app import create_app
from modelyard.config import validate_config
from modelyard.engine.settings import EngineSettings
from modelyard.protocol.events import Accepted, Cancelled, Event, Finished, Loaded, Stopped, Token
from modelyard.protocol.messages import Message
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.requests import Cancel, Stop, Submit
from modelyard.protocol.values import SequenceId, Usage
from modelyard.yard.yard import Yard

STEP_S = 0.02
WORD = " word"


class ScriptedEngine:
    """An EngineHandle. Its thread's processor time is in ``cpu_s``."""

    step_s = STEP_S

    def __init__(self, _settings: EngineSettings, publish: Callable[[Sequence[Event]], None]) -> None:
        self.cpu_s = 0.0
        self._publish = publish
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._left: dict[SequenceId, list[int]] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        engines.append(self)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def send(self, message: Message) -> None:
        """Hand over a message."""
        self._inbox.put(message)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def load(self) -> None:
        """Load; it takes no time."""

    def _run(self) -> None:
        self.load()
        self._publish([Loaded(ModelProfile(8192, "", 0, "fp_0", can_chat=False))])
        due = time.monotonic()
        while True:
            try:
                message = self._inbox.get(timeout=max(0.0, due - time.monotonic()) if self._left else None)
            except queue.Empty:
                due = time.monotonic() + self.step_s
                self._publish(self._step())
                self.cpu_s = time.thread_time()
                continue
            match message:
                case Submit(sequence, max_tokens=most):
                    self._left[sequence] = [most or 1, 0]
                    self._publish([Accepted(sequence, 8), *(self._say(sequence) if most == 1 else ())])
                case Cancel(sequence) if self._left.pop(sequence, None):
                    self._publish([Cancelled(sequence)])
                case Stop():
                    self._publish([Stopped()])
                    return

    def _step(self) -> list[Event]:
        return [event for sequence in list(self._left) for event in self._say(sequence)]

    def text(self) -> str:
        """Return the text of a token."""
        return WORD

    def _say(self, sequence: SequenceId) -> list[Event]:
        most, said = self._left[sequence]
        self._left[sequence][1] = said = said + 1
        if said < most:
            return [Token(sequence, self.text())]
        del self._left[sequence]
        return [Token(sequence, self.text()), Finished(sequence, "length", Usage(8, said, 0))]


engines: list[ScriptedEngine] = []


class Bare:
    """An ASGI application that streams frames to everybody at the same time."""

    def __init__(self) -> None:
        self._tick = asyncio.get_running_loop().create_future()
        self._ticking = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(STEP_S)
            tick, self._tick = self._tick, asyncio.get_running_loop().create_future()
            tick.set_result(None)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer a request as Modelyard would."""
        if scope["method"] == "GET":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"{}"})
            return
        message = await receive()
        asked = json.loads(message["body"])
        if not asked.get("stream"):
            body = b'{"choices":[{"text":" word"}],"usage":{"completion_tokens": 1}}' + b" " * 300
            length = str(len(body)).encode()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
            await send({"type": "http.response.body", "body": body})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        frame = b'data: {"choices":[{"text":" word"}]' + b" " * 150 + b"}\n\n"
        for _ in range(asked["max_tokens"]):
            await self._tick
            await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def serve(kind: str, port: int, weights: str) -> None:
    """Until killed."""
    app: Any
    if kind == "modelyard":
        models = [{"model_id": weights, "alias": "0"}]
        yard = Yard(
            validate_config({"runtime": {"max_seqs": 128, "prefix_cache_n": 0}, "models": models}), ScriptedEngine
        )
        await yard.start()
        app = create_app(yard, [])
    else:
        app = Bare()
    config = uvicorn.Config(app, port=port, lifespan="off", log_config=None, server_header=False)
    threading.Thread(target=_tell_cpu, daemon=True).start()
    await uvicorn.Server(config).serve()


def _tell_cpu() -> None:
    for _ in sys.stdin:
        print(json.dumps({"cpu_s": time.process_time() - sum(engine.cpu_s for engine in engines)}), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
