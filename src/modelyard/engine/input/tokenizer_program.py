"""Tokenises texts in a process of its own, which can be ended: see ``tokenizer_process``.

    python -m modelyard.engine.input.tokenizer_program FILE.gguf [MORE SHARDS]

Reads requests from standard input until that ends: ``REQUEST`` and the text. Answers each on standard output with
``ANSWER``, the number of tokens, and that many ids.
"""

from __future__ import annotations

import math
import struct
import sys
import time
from array import array
from pathlib import Path
from typing import BinaryIO, Final

from modelyard.engine.llama import Model, Weights

# Bytes of UTF-8 that follow; whether special tokens are added; whether those that are spelt out count as such.
REQUEST: Final = struct.Struct("<Q??")
ANSWER: Final = struct.Struct("<Q")

CPU_S: Final = 5.0
CPU_S_OF_BYTE: Final = 5e-6


def main(paths: list[str], requests: BinaryIO, answers: BinaryIO) -> None:
    """Serve until there are no more requests."""
    weights = Weights(
        [Path(path) for path in paths],
        gpu_layers=0,
        on_progress=lambda _: True,
        end_tokens=frozenset(),
        is_vocabulary_only=True,
    )
    model = Model(weights)
    while head := requests.read(REQUEST.size):
        length, add_special, parse_special = REQUEST.unpack(head)
        _limit_time(cpu_seconds(length))
        tokens = model.tokenize_here(requests.read(length), add_special=add_special, parse_special=parse_special)
        answers.write(ANSWER.pack(len(tokens)) + array("i", tokens).tobytes())
        answers.flush()


def cpu_seconds(length: int) -> float:
    """Processor time that a text of so many bytes may take: a million characters take 1 to 2.3 s."""
    return CPU_S + CPU_S_OF_BYTE * length


def _limit_time(seconds: float) -> None:
    """Have the system end this process after so much more processor time, where it can (POSIX)."""
    try:
        import resource
    except ImportError:
        # The parent's clock is what remains.
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    end_s = math.ceil(time.process_time() + seconds)
    # A limit that the server itself was started under cannot be raised.
    resource.setrlimit(resource.RLIMIT_CPU, (end_s if hard == resource.RLIM_INFINITY else min(end_s, hard), hard))


if __name__ == "__main__":
    main(sys.argv[1:], sys.stdin.buffer, sys.stdout.buffer)
