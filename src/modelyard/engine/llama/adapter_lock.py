"""Keeps the adapters of weights from changing while contexts on the same weights compute."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class AdapterLock:
    """Any number of contexts compute, or one thread adds or frees an adapter.

    llama.cpp goes over all adapters of the weights where it plans the graphs of a context, without a lock of its own:
    llama_context::graph_max_nodes. A change waits for the steps that run, and steps for a change.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._computing = 0
        self._changing = 0

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Return a context in which no adapter is added or freed. Takes 2 us."""
        with self._change:
            while self._changing:
                self._change.wait()
            self._computing += 1
        try:
            yield
        finally:
            with self._change:
                self._computing -= 1
                if self._changing and not self._computing:
                    self._change.notify_all()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Return a context in which nothing is computed on the weights, to add or free an adapter."""
        with self._change:
            self._changing += 1
            while self._computing:
                self._change.wait()
            try:
                yield
            finally:
                self._changing -= 1
                self._change.notify_all()
