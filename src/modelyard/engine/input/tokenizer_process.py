"""Tokenises texts that may take long, in a process that is killed when it takes too long.

llama.cpp tokenises a text in one call that nothing interrupts. For most texts the time is proportional to their length;
for texts with long runs (see ``long_runs``) it depends on the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from modelyard.engine.input.tokenizer_time import cpu_seconds
from modelyard.errors import EngineError, InvalidRequest, PromptUnread
from modelyard.system.bounded.pool import ProcessPool, ProcessUnavailable
from modelyard.system.file_stamp import FileStamp, first_changed

PROGRAM: Final = "modelyard.engine.input.tokenizer_program"

# Limit of processes of one engine; each holds a vocabulary in memory.
MAX_PROCESSES: Final = 2


class TokenizerProcesses:
    """Tokenizer processes of one vocabulary, started when needed. The methods may be called on any thread.

    Args:
        name: id of the model, for messages.
        paths: the model's file, or all its shards.
        program: the module that the processes run.
        stamps: stamps of the files when they were loaded: a process that starts later must not read others.
    """

    def __init__(
        self, name: str, paths: Sequence[Path], program: str = PROGRAM, stamps: Sequence[FileStamp] = ()
    ) -> None:
        self._name, self._stamps = name, stamps
        self._pool = ProcessPool(program, paths, limit_s=cpu_seconds(0), kept=0, max_processes=MAX_PROCESSES)

    @property
    def pids(self) -> list[int]:
        """The ids of all processes."""
        return self._pool.pids

    def tokenize(self, text: bytes, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of UTF-8, as ``Model.tokenize`` does.

        Raises:
            InvalidRequest: it takes too long, or the tokenizer dies of it.
            PromptUnread: the wait for other texts is too long.
            EngineError: the file was replaced since the model was loaded.
        """
        if (changed := first_changed(self._stamps)) is not None:
            raise EngineError(
                self._name,
                f"the file {changed.name} was replaced since it was loaded, and with it the vocabulary for such texts",
            )
        # One character per byte, so that invalid UTF-8 arrives unchanged.
        facts = {"text": text.decode("latin-1"), "add_special": add_special, "parse_special": parse_special}
        request = json.dumps(facts, ensure_ascii=False).encode()
        try:
            answer = self._pool.ask(request, limit_s=cpu_seconds(len(text)))
        except ProcessUnavailable as failure:
            raise PromptUnread(self._name, f"its tokenizer cannot be used: {failure}") from failure
        if "fault" in answer:
            raise InvalidRequest(
                f"A text cannot be tokenised: the tokenizer {answer['why']}. Shorten it; where it has thousands of "
                "characters of one kind in a row, such as digits, break them up."
            )
        tokens: list[int] = answer["tokens"]
        return tokens

    def close(self) -> None:
        """End the processes, also those at work, whose callers get an error."""
        self._pool.close()
