"""Tokenises texts in a process of its own, which can be killed: see ``tokenizer_process``, and ``bounded.inside``.

Arguments: the model's file, or all its shards. A request has a ``text``, with one character per byte of its UTF-8, and
the flags ``add_special`` and ``parse_special``; the answer has its ``tokens``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelyard.engine.input.tokenizer_time import cpu_seconds
from modelyard.engine.llama import Model, Weights
from modelyard.system.bounded.inside import lift_limits, limit, serve
from modelyard.system.malloc import share_one_heap


class Tokenizer:
    """Answers requests, each within its time limit."""

    def __init__(self, paths: Sequence[Path]) -> None:
        weights = Weights(paths, on_progress=lambda _: True, end_tokens=frozenset(), is_vocabulary_only=True)
        self._model = Model(weights)

    def answer(self, request: dict[str, Any], _size: int) -> dict[str, Any]:
        """Return the tokens of a text."""
        text = request["text"].encode("latin-1")
        limit(0, cpu_seconds(len(text)))
        try:
            tokens = self._model.tokenize_here(
                text, add_special=request["add_special"], parse_special=request["parse_special"]
            )
        except MemoryError as lacking:
            return {"fault": "failed", "why": str(lacking)}
        finally:
            lift_limits()
        return {"tokens": tokens}


def main() -> None:
    """Serve until the socket closes."""
    # Each text is tokenised on a thread of its own, whose heap would otherwise stay allocated.
    share_one_heap()
    serve(Tokenizer([Path(path) for path in sys.argv[1:]]).answer)
