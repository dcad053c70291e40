"""The error of an invalid configuration, with the position of each of its problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from modelyard.errors.base import ModelyardError

MAX_SHOWN_PROBLEMS: Final = 20
"""Problems that the text of an error shows; further ones are counted."""

Location = tuple[str | int, ...]
"""Keys and indices that lead to a value of a configuration: ``("models", 0, "device", "cpu")``."""


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One problem of a configuration. Its text is one paragraph, without the position.

    Attributes:
        message: what is wrong, with the value, as a sentence.
        hint: what to do, as a sentence; "" where the message says it.
        table: the table as TOML writes it, with the number and id of its model; "" for the top level.
        location: keys and indices of the value; () where it has none.
        related: locations of other values that the problem depends on.
        is_key: whether the key itself is wrong, not its value.
        key: the key with the names of its tables and the id of its model, such as ``models.qwen.device.cpu``.
        line, column: position in the file, both counted from 1, the column in characters; None without a file.
        excerpt: the line of the file with a mark under the value or key, over several lines; "" without a file.
        source: the file, where it is another than that of the error; "" where it is the same.
    """

    message: str
    hint: str = ""
    table: str = ""
    location: Location = ()
    related: tuple[Location, ...] = ()
    is_key: bool = False
    key: str = ""
    line: int | None = None
    column: int | None = None
    excerpt: str = ""
    source: str = ""

    def __str__(self) -> str:
        return f"{self.table}: {self.advice}" if self.table else self.advice

    @property
    def advice(self) -> str:
        """The message and the hint, without the table."""
        return f"{self.message} {self.hint}" if self.hint else self.message


class ConfigError(ModelyardError):
    """The configuration is invalid. The error lists all problems, not only the first.

    Attributes:
        source: where the configuration comes from: a path, or words such as "command line"; empty where the
            problems say it.
        path: the file; None where it comes from no file.
        problems: what is wrong, in the order of the file where there is one.
    """

    code = "config_error"
    status = 400
    type = "invalid_request_error"

    def __init__(self, source: str, problems: Sequence[ConfigProblem | str], path: Path | None = None) -> None:
        super().__init__(source, problems, path)
        self.source = source
        self.path = path
        self.problems = tuple(
            problem if isinstance(problem, ConfigProblem) else ConfigProblem(problem) for problem in problems
        )

    def __str__(self) -> str:
        shown, hidden = self.problems[:MAX_SHOWN_PROBLEMS], len(self.problems) - MAX_SHOWN_PROBLEMS
        rest = f"and {hidden} more." if hidden > 0 else ""
        if len(shown) == 1:
            return _located(self.source, shown[0])
        head = f"{f'{self.source}: ' if self.source else ''}{len(self.problems)} problems"
        if any(problem.line is not None for problem in shown):
            return "\n\n".join(filter(None, (head, *(_located(self.source, problem) for problem in shown), rest)))
        return "\n".join([head, *(f"  - {problem}" for problem in shown), *([f"  {rest}"] if rest else [])])

    @property
    def in_one_line(self) -> str:
        """The problems with their positions, without the lines of the file, for a log."""
        shown = self.problems[:MAX_SHOWN_PROBLEMS]
        texts = [_located(self.source, replace(problem, excerpt="")) for problem in shown]
        if (hidden := len(self.problems) - len(shown)) > 0:
            texts.append(f"And {hidden} more.")
        return " ".join(texts)


def _located(source: str, problem: ConfigProblem) -> str:
    """Return the problem as compilers print it: position, table and message, then the line of the file and the hint."""
    source = problem.source or source
    if problem.line is None:
        return f"{source}: {problem}" if source else str(problem)
    # The key of an item in a list ends with its number.
    parts = 2 if problem.location and isinstance(problem.location[-1], int) else 1
    table = problem.key.rsplit(".", parts)[0] if problem.key.count(".") >= parts else ""
    outer, _, last = table.rpartition(".")
    if problem.message.startswith(f"{last}: "):
        # The message of a value in a table with any names, such as [memory.devices], begins with the name of the table.
        table = outer
    where = f"{source}:{problem.line}:{problem.column}: {f'{table}: ' if table else ''}"
    return f"{where}{problem.message}\n{problem.excerpt}" if problem.excerpt else f"{where}{problem.advice}"
