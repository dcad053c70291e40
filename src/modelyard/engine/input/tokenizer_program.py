"""Tokenises texts in a process of its own, which can be ended: see ``tokenizer_process``.

    python -m modelyard.engine.input.tokenizer_program FILE.gguf [MORE SHARDS]

Reads requests from standard input until that ends: ``REQUEST`` and the text. Answers each on standard output with
``ANSWER``, the number of tokens, and that many ids.
"""

from __future__ import annotations

import sys
from array import array
from pathlib import Path
from typing import BinaryIO

from modelyard.engine.bounded.processor_time import limit_processor_time
from modelyard.engine.input.tokenizer_framing import ANSWER, REQUEST, cpu_seconds
from modelyard.engine.llama import Model, Weights


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
        limit_processor_time(cpu_seconds(length))
        tokens = model.tokenize_here(requests.read(length), add_special=add_special, parse_special=parse_special)
        answers.write(ANSWER.pack(len(tokens)) + array("i", tokens).tobytes())
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1:], sys.stdin.buffer, sys.stdout.buffer)
