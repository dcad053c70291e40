"""Does what a plan says: downloads, converts, quantises; then the files are on this machine and were looked into."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.hub.child import run_converter
from modelyard.hub.choose import Choice
from modelyard.hub.converted import Entry
from modelyard.hub.decide import Wanted
from modelyard.hub.disk import check_room
from modelyard.hub.gguf_header import read_header
from modelyard.hub.isq import Target
from modelyard.hub.labels import normalise
from modelyard.hub.listing import OnProgress, Progress
from modelyard.hub.model_files import ModelFiles, read_files
from modelyard.hub.plan import FilePlan, Stores, conversion_key, plan_files
from modelyard.hub.projector import with_projector
from modelyard.hub.safetensors_header import read_safetensors
from modelyard.hub.uqff import read_uqff
from modelyard.hub.uqff_format import RESIDUAL, SUFFIX

logger = logging.getLogger(__name__)

_REQUANTISABLE: Final = ("F32", "F16", "BF16", "Q8_0")


def resolve(wanted: Wanted, stores: Stores | None = None, on_progress: OnProgress = lambda _: True) -> ModelFiles:
    """The files that ``wanted`` means, prepared and checked: ``plan_files`` and ``prepare`` in one.

    Raises:
        UnusableModel: with what is wrong and what to do, or it was given up.
    """
    stores = stores or Stores()
    return prepare(plan_files(wanted, stores), stores, on_progress)


def prepare(plan: FilePlan, stores: Stores, on_progress: OnProgress) -> ModelFiles:
    """Have the files of ``plan`` ready to be loaded.

    It can be given up, or end with the process, at any point: what was downloaded is kept, what was half converted is
    thrown away. Others that prepare the same wait for it and use what it made.

    Raises:
        UnusableModel: with what is wrong and what to do, or it was given up.
    """
    decision = plan.decision
    if decision.listing.note:
        logger.warning("%s", decision.listing.note)
    if decision.target is None:
        names = (*decision.names, plan.projector) if plan.projector else decision.names
        folder = stores.hub.fetch(decision.listing, names, on_progress)
        choice = Choice(decision.names, decision.reasons[-1], decision.label)
        return _complete(
            plan, read_files(folder, choice, plan.wanted.quant, plan.wanted.kind), folder, stores, on_progress
        )
    entry = plan.made or _make(plan, decision.target, stores, on_progress)
    stores.converted.use(entry)
    choice = Choice((entry.path.name,), decision.reasons[-1], entry.label)
    files = read_files(entry.path.parent, choice, None, plan.wanted.kind)
    if not plan.projector:
        return files
    folder = stores.hub.fetch(decision.listing, (plan.projector,), on_progress)
    return _complete(plan, files, folder, stores, on_progress)


def _complete(plan: FilePlan, files: ModelFiles, folder: Path, stores: Stores, on_progress: OnProgress) -> ModelFiles:
    """The files with the projector of ``plan``, which is in ``folder``, if it has one."""
    if not plan.projector:
        return files
    is_required = plan.wanted.kind == "multimodal" or plan.wanted.mmproj is not None
    files = with_projector(files, folder / plan.projector, is_required=is_required)
    stores.projectors.check(files, on_progress)
    return files


def _make(plan: FilePlan, target: Target, stores: Stores, on_progress: OnProgress) -> Entry:
    decision = plan.decision
    if decision.form != "gguf":
        _check_converter()
    folder = stores.hub.fetch(decision.listing, decision.names, on_progress)
    with stores.converted.making(plan.key, on_progress) as place:
        made = stores.converted.find(plan.key)
        if made is not None:
            return made
        check_room(place, _needed_bytes(plan, target), f"'{plan.wanted.source}' cannot be converted")
        for reason in decision.reasons:
            logger.info("%s", reason)
        if decision.form == "uqff":
            partial = place / "uqff.partial"
            _convert_uqff(plan, folder, partial, on_progress)
            label = read_header(partial).quantization
            name = f"{plan.name}-{label}.gguf"
            return stores.converted.finish(place, partial, name=name, source=plan.wanted.source, label=label)
        if decision.form == "gguf":
            _check_precision(folder / decision.names[0])
            source: Path | None = folder / decision.names[0]
        else:
            source = _full_precision(plan, stores)
        full = place / "full.partial"
        if source is None:
            _convert(plan, folder, full, target, on_progress)
            source = full
        partial = full
        if not target.is_full_precision or decision.form == "gguf":
            partial = place / "quantized.partial"
            _quantize(source, partial, target, plan.wanted.imatrix, on_progress)
            full.unlink(missing_ok=True)
        label = target.label or read_header(partial).quantization
        name = f"{plan.name}-{label}.gguf"
        return stores.converted.finish(place, partial, name=name, source=plan.wanted.source, label=label)


def _convert(plan: FilePlan, folder: Path, out: Path, target: Target, on_progress: OnProgress) -> None:
    """A checkpoint to GGUF of full precision."""
    with _staged(plan, folder, out.parent) as staged:
        precision = ["--type", target.label.lower()] if target.label and target.is_full_precision else []
        arguments = [str(staged), str(out), "--name", plan.name, *precision]
        run_converter("checkpoint", arguments, on_progress, _notice)


def _convert_uqff(plan: FilePlan, folder: Path, out: Path, on_progress: OnProgress) -> None:
    """UQFF to GGUF, with the weights as they are."""
    shards = [name for name in plan.decision.names if name.endswith(SUFFIX)]
    read_uqff(folder / name for name in shards)
    if RESIDUAL in plan.decision.names:
        read_safetensors(folder / RESIDUAL)
    with _staged(plan, folder, out.parent) as staged:
        run_converter("uqff", [str(staged), str(out), "--name", plan.name, *shards], on_progress, _notice)


@contextmanager
def _staged(plan: FilePlan, folder: Path, beside: Path) -> Iterator[Path]:
    """A folder with links to the files of a plan, and to nothing else.

    It is where the file is made: what a killed process leaves is thrown away with that. It has the model's name, by
    which the converter knows rerankers of Qwen3.
    """
    with tempfile.TemporaryDirectory(prefix="checkpoint-", dir=beside) as staging:
        staged = Path(staging) / plan.name
        # Only what is known to be data: a tokenizer that comes as a program would be run.
        for name in plan.decision.names:
            # Converters look for weights by that name.
            link = staged / ("model.safetensors" if name == RESIDUAL else name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((folder / name).absolute())
        yield staged


def _quantize(source: Path, out: Path, target: Target, imatrix: Path | None, on_progress: OnProgress) -> None:
    arguments = [str(source), str(out), str(target.file_type)]
    if imatrix is not None:
        arguments += ["--imatrix", str(imatrix)]
    on_progress(Progress("quantizing", 0.0))
    run_converter("quantize", arguments, on_progress, _notice)


def _full_precision(plan: FilePlan, stores: Stores) -> Path | None:
    """The same checkpoint in full precision, where that was made before."""
    key = conversion_key(plan.decision, Target(""), None)
    entry = None if key == plan.key else stores.converted.find(key)
    return None if entry is None else entry.path


def _needed_bytes(plan: FilePlan, target: Target) -> int:
    source = plan.decision.listing.size_of(name for name in plan.decision.names if name.endswith(".safetensors"))
    return plan.output_bytes + (0 if target.is_full_precision else source)


def _check_precision(path: Path) -> None:
    """What was quantised already loses too much when it is quantised again."""
    label = read_header(path).quantization
    if normalise(label) not in {normalise(known) for known in _REQUANTISABLE}:
        raise UnusableModel(
            f"{path}: It is quantised already ({label}), and would lose too much by isq. Remove isq, or name the "
            "model's full-precision files."
        )


def _check_converter() -> None:
    missing = [name for name in ("torch", "conversion", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise UnusableModel(
            f"Safetensors are converted with packages that are not installed ({', '.join(missing)}). Install them: "
            "make convert in a checkout, else pip install 'modelyard[convert]' (about 1 GB, most of it torch). "
            "Or name a GGUF file of the model."
        )


def _notice(text: str) -> None:
    logger.warning("%s", text)
