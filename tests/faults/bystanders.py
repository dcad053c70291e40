"""Streams of other models, which must not notice what is done to one of them."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final, Self

import httpx

WAIT_S: Final = 120.0


class Bystander:
    """Reads one stream after the other of a model, and notes the longest pause and every end that is none.

    Args:
        url: the server's.
        model: the model.
        rest_s: how long it waits between two streams, which are short then: what is tried gets more processor time.

    Attributes:
        longest_gap_s: between two pieces of a stream, since ``begin``.
        problems: what went wrong.
    """

    def __init__(self, url: str, model: str, rest_s: float = 0.0) -> None:
        self.longest_gap_s = 0.0
        self.problems: list[str] = []
        self._url, self._model, self._rest_s = url, model, rest_s
        self._tokens = 300 if rest_s == 0 else 24
        self._is_over = threading.Event()
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"bystander {model}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._has_begun.wait(WAIT_S), f"{self._model} does not answer"
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join(WAIT_S)

    def begin(self) -> None:
        """Begin to measure anew."""
        self.longest_gap_s = 0.0

    def _read(self) -> None:
        with httpx.Client(timeout=WAIT_S) as client:
            while not self._is_over.is_set() and not self.problems:
                try:
                    self._read_one(client)
                except (httpx.HTTPError, OSError) as failure:
                    self.problems.append(f"{self._model}: {failure!r}")
                self._is_over.wait(self._rest_s)

    def _read_one(self, client: httpx.Client) -> None:
        body = {"model": self._model, "prompt": "Once upon a time", "max_tokens": self._tokens, "stream": True}
        with client.stream("POST", f"{self._url}/v1/completions", json={**body, "ignore_eos": True}) as answer:
            if answer.status_code != 200:
                self.problems.append(f"{self._model}: {answer.status_code} {answer.read().decode()}")
                return
            last, line = time.monotonic(), ""
            for line in filter(None, answer.iter_lines()):
                now = time.monotonic()
                self.longest_gap_s = max(self.longest_gap_s, now - last)
                last = now
                self._has_begun.set()
                if '"error"' in line:
                    self.problems.append(f"{self._model}: {line}")
                if self._is_over.is_set():
                    return
            if line != "data: [DONE]":
                self.problems.append(f"{self._model}: its stream ends with {line!r}")
