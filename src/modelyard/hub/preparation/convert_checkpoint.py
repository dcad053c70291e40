"""A checkpoint becomes GGUF files, by llama.cpp's converter in a child process."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard.formats.safetensors import read_safetensors
from modelyard.formats.uqff.constants import RESIDUAL
from modelyard.hub.preparation.plan import FilePlan
from modelyard.hub.sources.converter_process import run_converter
from modelyard.hub.sources.listing import OnProgress

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Output:
    """A GGUF file that a conversion writes.

    Attributes:
        path: of the file.
        precision: "f32", "f16" or "bf16"; None: that of most weights.
    """

    path: Path
    precision: str | None = None


def convert_checkpoint(
    plan: FilePlan, folder: Path, model: Output | None, projector: Output | None, on_progress: OnProgress
) -> None:
    """Convert the checkpoint of ``plan`` to GGUF files.

    Args:
        plan: whose files are converted.
        folder: that holds them.
        model: the language model; None where it is not wanted.
        projector: made of the vision and audio towers; None where it is not wanted. Beside a model it is left out where
            it cannot be made.
        on_progress: returning False gives it up.

    Raises:
        ConversionFailed: llama.cpp's converter cannot convert it.
        UnusableModel: a file is damaged, it was given up, or the machine's memory ran out.
    """
    for name in plan.decision.names:
        if name.endswith(".safetensors"):
            # What was cut off is told by name here; the converter meets it gigabytes later.
            read_safetensors(folder / name)
    beside = model or projector
    assert beside is not None
    arguments = ["--name", plan.name, *projector_arguments(projector)]
    if model is not None:
        precision = ["--type", model.precision] if model.precision else []
        arguments = [str(model.path), *arguments, *precision]
    with staged(plan, folder, beside.path.parent) as place:
        run_converter("checkpoint", [str(place), *arguments], on_progress, log_notice)


def projector_arguments(projector: Output | None) -> list[str]:
    """What has a converter write a projector, on its command line."""
    if projector is None:
        return []
    precision = ["--projector-type", projector.precision] if projector.precision else []
    return ["--projector", str(projector.path), *precision]


@contextmanager
def staged(plan: FilePlan, folder: Path, beside: Path) -> Iterator[Path]:
    """A folder with links to the files of a plan, and to nothing else.

    It is where the file is made: what a killed process leaves is thrown away with that. It has the model's name, by
    which the converter knows rerankers of Qwen3.
    """
    with tempfile.TemporaryDirectory(prefix="checkpoint-", dir=beside) as staging:
        place = Path(staging) / plan.name
        # Only what is known to be data: a tokenizer that comes as a program would be run.
        for name in plan.decision.names:
            # Converters look for weights by that name.
            link = place / ("model.safetensors" if name == RESIDUAL else name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((folder / name).absolute())
        yield place


def log_notice(text: str) -> None:
    """Log what people should know of the result of a conversion."""
    logger.warning("%s", text)
