"""Tokenises texts that may take long, in a process that is ended when it takes too long.

llama.cpp tokenises a text in one call that nothing interrupts. Of most texts it is known that the time is in proportion
to their length; of those with long runs (see ``long_runs``) it depends on the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from modelyard.engine.input.tokenizer_time import cpu_seconds
from modelyard.errors import EngineError, InvalidRequest
from modelyard.system.bounded.pool import ProcessPool, ProcessUnavailable
from modelyard.system.file_stamp import FileStamp, first_changed

PROGRAM: Final = "modelyard.engine.input.tokenizer_program"

# Of one engine. Each has a vocabulary of its own in memory.
MAX_PROCESSES: Final = 2


class TokenizerProcesses:
    """The processes of one vocabulary, started when they are needed. Its methods may be called on any thread.

    Args:
        name: of the model, for messages.
        paths: its file, or all its shards.
        program: that runs in them.
        stamps: the files as they were loaded: a process that starts later is not to read others.
    """

    def __init__(
        self, name: str, paths: Sequence[Path], program: str = PROGRAM, stamps: Sequence[FileStamp] = ()
    ) -> None:
        self._name, self._stamps = name, stamps
        self._pool = ProcessPool(program, paths, limit_s=cpu_seconds(0), kept=0, most=MAX_PROCESSES)

    @property
    def pids(self) -> list[int]:
        """Of all processes."""
        return self._pool.pids

    def tokenize(self, text: bytes, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of UTF-8, as ``Model.tokenize`` gives them.

        Raises:
            InvalidRequest: it takes too long, or the tokenizer dies of it.
            EngineError: others take long before it, or its file was replaced since the model was loaded.
        """
        if (changed := first_changed(self._stamps)) is not None:
            raise EngineError(
                self._name,
                f"the file {changed.name} was replaced since it was loaded, and with it the vocabulary for such texts",
            )
        # A byte a character: what is no UTF-8 arrives as it is.
        facts = {"text": text.decode("latin-1"), "add_special": add_special, "parse_special": parse_special}
        request = json.dumps(facts, ensure_ascii=False).encode()
        try:
            answer = self._pool.ask(request, limit_s=cpu_seconds(len(text)))
        except ProcessUnavailable as failure:
            raise EngineError(self._name, f"its tokenizer cannot be used: {failure}") from failure
        if "fault" in answer:
            raise InvalidRequest(
                f"A text cannot be tokenised: the tokenizer {answer['why']}. Shorten it; where it has thousands of "
                "characters of one kind in a row, such as digits, break them up."
            )
        tokens: list[int] = answer["tokens"]
        return tokens

    def close(self) -> None:
        """End the processes, those that are at work, too: who waits for them is told that they ended."""
        self._pool.close()
