"""A checkpoint becomes GGUF files, by llama.cpp's converter in a child process."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.hub.child import run_converter
from modelyard.hub.listing import OnProgress
from modelyard.hub.plan import FilePlan
from modelyard.hub.safetensors_header import read_safetensors
from modelyard.hub.uqff_format import RESIDUAL

logger = logging.getLogger(__name__)


def convert_checkpoint(
    plan: FilePlan,
    folder: Path,
    out: Path,
    precision: str | None,
    on_progress: OnProgress,
    *,
    is_projector: bool = False,
) -> None:
    """Convert the checkpoint of ``plan`` to one GGUF file.

    Args:
        plan: whose files are converted.
        folder: that holds them.
        out: the file to write.
        precision: "f32", "f16" or "bf16"; None: that of most weights.
        on_progress: returning False gives it up.
        is_projector: whether the file is the projector, made of the vision and audio towers; else it is the language
            model.

    Raises:
        ConversionFailed: llama.cpp's converter cannot convert it.
        UnusableModel: a file is damaged, it was given up, or the machine's memory ran out.
    """
    for name in plan.decision.names:
        if name.endswith(".safetensors"):
            # What was cut off is told by name here; the converter meets it gigabytes later.
            read_safetensors(folder / name)
    with staged(plan, folder, out.parent) as place:
        arguments = [str(place), str(out), "--name", plan.name]
        arguments += ["--type", precision] if precision else []
        arguments += ["--projector"] if is_projector else []
        run_converter("checkpoint", arguments, on_progress, log_notice)


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
