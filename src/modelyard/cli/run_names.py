"""What the words after ``modelyard run`` mean: a model or a configuration, and a question."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelyard.cli.model_names import is_config, is_weights
from modelyard.cli.usage import UsageError


@dataclass(frozen=True, slots=True)
class RunNames:
    """What a command line names.

    Attributes:
        model: None: the default of the configuration, or of a running server.
        config: the configuration whose models can be used; None: none is named.
        words: the words of the question; none: none is asked.
    """

    model: str | None = None
    config: Path | None = None
    words: tuple[str, ...] = ()

    @property
    def question(self) -> str | None:
        """The question; None: none is asked."""
        return " ".join(self.words) if self.words else None

    def of_config(self, models: Collection[str]) -> RunNames:
        """Return the names for a configuration with ``models``: the first word of the question may be one of them."""
        if self.model is None and self.words and self.words[0] in models:
            return replace(self, model=self.words[0], words=self.words[1:])
        return self


def read_run_names(words: Sequence[str], model: str | None, config: Path | None) -> RunNames:
    """Return what a command line names.

    The first word is a model or a configuration, unless an option names it already; all others are the question.

    Args:
        words: the arguments.
        model: the value of ``-m``.
        config: the value of ``-f``.

    Raises:
        UsageError: two models, or two configurations, are named.
    """
    rest = list(words)
    if model is not None and is_config(model):
        raise UsageError(f"-m {model}: this is a configuration. Write: modelyard run {model}")
    if config is not None and is_weights(str(config)):
        raise UsageError(f"-f {config}: this is a model, and -f is the configuration. Write: modelyard run {config}")
    if rest and is_config(rest[0]):
        first = Path(rest.pop(0))
        if config is not None and config != first:
            raise UsageError(f"{first} and --config {config} are two configurations. Leave one of them out.")
        config = first
    elif rest and model is None and config is None:
        model = rest.pop(0)
    elif rest and model is not None and rest[0] == model:
        rest.pop(0)
    elif rest and model is not None and is_weights(rest[0]):
        raise UsageError(f"{rest[0]} and --model {model} are two models, and run takes one. Leave one of them out.")
    return RunNames(model, config, tuple(rest))
