"""Converts a checkpoint to GGUF files with llama.cpp's converter, in a child process."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
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
class GgufOutput:
    """A GGUF file that a conversion writes.

    Attributes:
        path: path of the file.
        precision: "f32", "f16" or "bf16"; None: the precision of most weights.
    """

    path: Path
    precision: str | None = None


def convert_checkpoint(
    plan: FilePlan, folder: Path, model: GgufOutput | None, projector: GgufOutput | None, on_progress: OnProgress
) -> None:
    """Convert the checkpoint of ``plan`` to GGUF files.

    Args:
        plan: the plan whose files are converted.
        folder: the folder that holds the files.
        model: the language model to write; None to write none.
        projector: the projector to write, made of the vision and audio towers; None to write none. Together with a
            model, a projector that cannot be converted is left out.
        on_progress: returning False cancels the conversion.

    Raises:
        ConversionFailed: llama.cpp's converter cannot convert the checkpoint.
        UnusableModel: a file is damaged, the conversion was cancelled, or the machine's memory ran out.
    """
    for name in plan.decision.names:
        if name.endswith(".safetensors"):
            # Reports a truncated file by its name; the converter would fail on it only gigabytes later.
            read_safetensors(folder / name)
    output = model or projector
    assert output is not None
    arguments = ["--name", plan.name, *projector_arguments(projector)]
    if model is not None:
        precision = ["--type", model.precision] if model.precision else []
        arguments = [str(model.path), *arguments, *precision]
    with staged(plan, folder, output.path.parent) as staging:
        run_converter("checkpoint", [str(staging), *arguments], on_progress, log_notice(plan.name))


def projector_arguments(projector: GgufOutput | None) -> list[str]:
    """Return the command-line arguments that make a converter write the projector."""
    if projector is None:
        return []
    precision = ["--projector-type", projector.precision] if projector.precision else []
    return ["--projector", str(projector.path), *precision]


@contextmanager
def staged(plan: FilePlan, folder: Path, parent: Path) -> Iterator[Path]:
    """Yield a folder with links to the files of a plan, and to nothing else.

    It lies in ``parent``, the folder of the output, so that it is removed with what a killed process leaves there. It
    has the model's name, by which the converter recognises rerankers of Qwen3.
    """
    with tempfile.TemporaryDirectory(prefix="checkpoint-", dir=parent) as unnamed:
        staging = Path(unnamed) / plan.name
        # Only files that are known to be data are linked: the converter would run a tokenizer that is a program.
        for name in plan.decision.names:
            # Converters read weights only from files of this name.
            link = staging / ("model.safetensors" if name == RESIDUAL else name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((folder / name).absolute())
        yield staging


def log_notice(model: str) -> Callable[[str], None]:
    """Return what logs a notice of the converter for the user, with the name of the model that it is about."""
    return lambda text: logger.warning("%s: %s", model, text)
