"""A tokenizer that hangs, dies or computes for ever where a text says so."""

from __future__ import annotations

import os
import time
from typing import Any

from modelyard.system.bounded.inside import lift_limits, limit, serve


def answer(request: dict[str, Any], _size: int) -> dict[str, Any]:
    """The length of a text, its flags and the process, as tokens."""
    text = request["text"].encode("latin-1")
    if text == b"hang":
        time.sleep(600)
    if text == b"die":
        os.abort()
    if text == b"spin":
        limit(0, 0.1)
        while True:
            pass
    lift_limits()
    return {"tokens": [len(text), request["add_special"], request["parse_special"], os.getpid()]}


def main() -> None:
    """Serve until the socket closes."""
    serve(answer)
