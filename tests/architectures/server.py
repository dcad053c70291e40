"""Modelyard as its users run it, in a process of its own: a model that ends the process must not end the comparison."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import httpx

from architectures.places import ROOT, cache

CONTEXT: Final = 2048
WAIT_S: Final = 300.0
_STARTS_S: Final = 60.0
_ENDS_S: Final = 20.0
_LOOK_S: Final = 0.1

# What a model is served at: its label, and the level that asks for it.
LEVELS: Final[Mapping[str, str | None]] = {"F32": None, "Q8_0": "q8_0", "Q4_K_M": "4"}


class Refusal(Exception):
    """An error that the server answered with."""


class Ended(Exception):
    """The server's process is no more; the message is how it ended, and its last words."""


class Stopped(Ended):
    """It was ended in order, by somebody else."""


class Served:
    """A running server, which has a model at several levels of quantisation, loaded when they are asked for."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self._process = process
        self._log = log
        self._client = httpx.Client(base_url=url, timeout=WAIT_S)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The server's answer.

        Raises:
            Refusal: it is an error.
            Ended: there is none.
        """
        try:
            answer = self._client.post(path, json=body)
        except httpx.TransportError as error:
            raise self._ended(error) from error
        if answer.is_success:
            return answer.json()
        raise Refusal(_message(answer))

    def get(self, path: str) -> Any:
        """The server's answer.

        Raises:
            Ended: there is none.
        """
        try:
            return self._client.get(path).raise_for_status().json()
        except httpx.TransportError as error:
            raise self._ended(error) from error

    def stream(self, body: Mapping[str, Any], on_first: Callable[[], None]) -> str:
        """The text of a streamed completion; ``on_first`` is called when its first piece is there.

        Raises:
            Refusal: the stream ends with an error.
            Ended: it ends without.
        """
        pieces: list[str] = []
        try:
            with self._client.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
                for line in answer.iter_lines():
                    if not line.startswith("data: {"):
                        continue
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        raise Refusal(str(event["error"]))
                    pieces += [choice.get("text") or "" for choice in event.get("choices", ())]
                    if len(pieces) == 1:
                        on_first()
        except httpx.TransportError as error:
            raise self._ended(error) from error
        return "".join(pieces)

    def log(self) -> str:
        """What the server has logged."""
        return self._log.read_text("utf-8", "replace")

    def stop(self) -> None:
        """End the process."""
        self._client.close()
        self._process.terminate()
        try:
            self._process.wait(_ENDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ended(self, error: Exception) -> Ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2.0)
        if (status := self._process.poll()) is None:
            return Ended(f"The server does not answer: {error}")
        if status == 0:
            return Stopped("Somebody has ended the server.")
        last = " ".join(self.log()[-1500:].split())
        return Ended(f"The process ended with status {status}: {last[-700:]}")


def _message(answer: httpx.Response) -> str:
    try:
        error = answer.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return answer.text


def environment(name: str) -> dict[str, str]:
    """The environment of Modelyard's processes: conversions are kept apart from the user's own, by what is served."""
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH", ""))))
    return {
        **os.environ,
        "XDG_CACHE_HOME": str(_home(name)),
        "HF_HUB_OFFLINE": "1",
        "GGML_NO_BACKTRACE": "1",
        "PYTHONPATH": path,
    }


def _home(name: str) -> Path:
    return cache() / "served" / name


@contextlib.contextmanager
def serving(
    name: str, model: Path, levels: Sequence[str] = tuple(LEVELS), context: int | None = CONTEXT, **keys: str
) -> Iterator[Served]:
    """Serve ``model`` at ``levels``, by whose labels it is asked for; ``keys`` are further ones of its tables.

    ``context`` is the length of its context; None leaves it to the engine.

    Raises:
        Ended: the server did not start.
    """
    home = _home(name)
    home.mkdir(parents=True, exist_ok=True)
    config, log = home / "models.toml", home / "server.log"
    config.write_text(_toml(model, levels, context, keys), "utf-8")
    with log.open("wb") as output:
        process = _start(name, config, output)
    served: Served | None = None
    try:
        served = Served(process, f"http://127.0.0.1:{_port(process, log)}", log)
        yield served
    finally:
        if served is None:
            process.kill()
            process.wait()
        else:
            served.stop()


def _toml(model: Path, levels: Sequence[str], context: int | None, keys: Mapping[str, str]) -> str:
    lines = ["[server]", "port = 0", "[runtime]", "max_seqs = 8", "prefix_cache_n = 8"]
    # What is computed together is rounded otherwise, and a random model is often undecided between two tokens.
    lines.append("prompt_lookup = false")
    for label in levels:
        lines += ["[[models]]", f"model_id = {json.dumps(str(model))}", f'alias = "{label}"', 'load = "on-demand"']
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        if context is not None:
            lines += ["[models.device]", f"max_seq_len = {context}"]
        if (level := LEVELS[label]) is not None:
            lines += ["[models.quantization]", f'isq = "{level}"']
    return "\n".join(lines) + "\n"


def _start(name: str, config: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "modelyard", "from-config", "-f", str(config), "--no-supervisor"]
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment(name))


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port that the server says it listens on.

    Raises:
        Ended: it does not get as far.
    """
    deadline = time.monotonic() + _STARTS_S
    while time.monotonic() < deadline:
        said = log.read_text("utf-8", "replace")
        if (at := said.find("http://127.0.0.1:")) >= 0:
            digits = said[at + len("http://127.0.0.1:") :]
            number = digits[: next((i for i, c in enumerate(digits) if not c.isdigit()), len(digits))]
            if len(number) < len(digits):
                return int(number)
        if process.poll() is not None:
            break
        time.sleep(_LOOK_S)
    raise Ended(f"The server did not start: {' '.join(log.read_text('utf-8', 'replace')[-700:].split())}")
