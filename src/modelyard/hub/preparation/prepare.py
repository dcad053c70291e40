"""Carries out a plan: downloads, converts and quantises, then reads and checks the files."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.read import read_header
from modelyard.formats.safetensors import read_safetensors
from modelyard.formats.uqff.constants import RESIDUAL, SUFFIX
from modelyard.formats.uqff.reader import read_uqff
from modelyard.hub.preparation.conversion_key import conversion_key
from modelyard.hub.preparation.convert_checkpoint import (
    GgufOutput,
    convert_checkpoint,
    log_notice,
    projector_arguments,
    staged,
)
from modelyard.hub.preparation.plan import FilePlan, Stores, plan_files
from modelyard.hub.preparation.plan_limits import limits_of
from modelyard.hub.preparation.prepare_projector import attach_projector, projector_output
from modelyard.hub.select.gguf import FileChoice
from modelyard.hub.select.isq import Target
from modelyard.hub.select.kind import POOLED_KINDS
from modelyard.hub.select.model_files import ModelFiles, read_files
from modelyard.hub.select.select import FileRequest
from modelyard.hub.sources.converted import Entry
from modelyard.hub.sources.converter_process import run_converter
from modelyard.hub.sources.disk import check_disk_space
from modelyard.hub.sources.listing import OnProgress, Progress
from modelyard.hub.sources.llama_converter import check_converter
from modelyard.hub.sources.quant_labels import normalise

logger = logging.getLogger(__name__)

_REQUANTISABLE: Final = ("F32", "F16", "BF16", "Q8_0")


def resolve(request: FileRequest, stores: Stores | None = None, on_progress: OnProgress = lambda _: True) -> ModelFiles:
    """Plan and prepare the files of ``request``: ``plan_files`` and ``prepare`` in one.

    Raises:
        UnusableModel: the request cannot be fulfilled, or ``on_progress`` returned False.
    """
    stores = stores or Stores()
    return prepare(plan_files(request, stores), stores, on_progress)


def prepare(plan: FilePlan, stores: Stores, on_progress: OnProgress) -> ModelFiles:
    """Download and convert the files of ``plan``, and return them ready to be loaded.

    It can be cancelled, or end with the process, at any point: downloads are kept, incomplete conversions are removed.
    Other calls that prepare the same files wait for it and use its result.

    Raises:
        UnusableModel: the files cannot be prepared, or ``on_progress`` returned False.
    """
    decision = plan.decision
    if decision.listing.note:
        logger.warning("%s", decision.listing.note)
    if decision.target is None:
        names = (*decision.names, plan.projector.name) if plan.projector.name else decision.names
        folder = stores.hub.fetch(decision.listing, names, on_progress)
        choice = FileChoice(decision.names, decision.reasons[-1], decision.label)
        files = read_files(folder, choice, plan.request.quant, plan.request.kind)
    else:
        entry = plan.made or _convert(plan, decision.target, stores, on_progress)
        stores.converted.mark_used(entry)
        choice = FileChoice((entry.path.name,), decision.reasons[-1], entry.label)
        files = read_files(entry.path.parent, choice, None, plan.request.kind)
    files = replace(files, warnings=limits_of(plan, files.header, stores.hub))
    for warning in files.warnings:
        logger.warning("%s: %s", files.paths[0].name, warning)
    if files.kind in POOLED_KINDS:
        return files
    return attach_projector(plan, files, stores, on_progress)


def _convert(plan: FilePlan, target: Target, stores: Stores, on_progress: OnProgress) -> Entry:
    decision = plan.decision
    if decision.form != "gguf":
        check_converter()
    folder = stores.hub.fetch(decision.listing, decision.names, on_progress)
    with stores.converted.locked(plan.key, on_progress) as entry_folder:
        entry = stores.converted.find(plan.key)
        if entry is not None:
            return entry
        check_disk_space(entry_folder, _needed_bytes(plan, target), f"'{plan.request.source}' cannot be converted")
        for reason in decision.reasons:
            logger.info("%s", reason)
        if decision.form == "uqff":
            partial = entry_folder / "uqff.partial"
            with projector_output(plan, stores, on_progress) as projector:
                _convert_uqff(plan, folder, partial, projector, on_progress)
            # The type of most weights, which can differ from the target where rows do not fit its blocks.
            label = read_header(partial).quantization
        elif decision.form == "gguf":
            source = folder / decision.names[0]
            _check_precision(source)
            partial = entry_folder / "quantized.partial"
            _quantize(plan, source, partial, target, on_progress)
            label = target.label or read_header(partial).quantization
        else:
            partial = _convert_safetensors(plan, target, folder, entry_folder, stores, on_progress)
            label = target.label or read_header(partial).quantization
        name = f"{plan.name}-{label}.gguf"
        return stores.converted.complete(entry_folder, partial, name=name, source=plan.request.source, label=label)


def _convert_safetensors(
    plan: FilePlan, target: Target, folder: Path, entry_folder: Path, stores: Stores, on_progress: OnProgress
) -> Path:
    """Convert a checkpoint, quantise the outcome if the target asks for it, and return the file in ``entry_folder``."""
    full = entry_folder / "full.partial"
    source = None if target.is_full_precision else _find_full_precision(plan, stores)
    if source is None:
        precision = target.label.lower() if target.label and target.is_full_precision else None
        with projector_output(plan, stores, on_progress) as projector:
            convert_checkpoint(plan, folder, GgufOutput(full, precision), projector, on_progress)
        source = full
    if target.is_full_precision:
        return full
    quantized = entry_folder / "quantized.partial"
    _quantize(plan, source, quantized, target, on_progress)
    full.unlink(missing_ok=True)
    return quantized


def _convert_uqff(
    plan: FilePlan, folder: Path, out: Path, projector: GgufOutput | None, on_progress: OnProgress
) -> None:
    """Convert UQFF to GGUF, with the codes of the weights kept where GGUF has a type for them."""
    shards = [name for name in plan.decision.names if name.endswith(SUFFIX)]
    read_uqff(folder / name for name in shards)
    if RESIDUAL in plan.decision.names:
        read_safetensors(folder / RESIDUAL)
    with staged(plan, folder, out.parent) as staging:
        arguments = [str(staging), str(out), "--name", plan.name, *projector_arguments(projector)]
        run_converter("uqff.main", [*arguments, *shards], on_progress, log_notice(plan.name))


def _quantize(plan: FilePlan, source: Path, out: Path, target: Target, on_progress: OnProgress) -> None:
    arguments = [str(source), str(out), str(target.file_type)]
    if plan.request.imatrix is not None:
        arguments += ["--imatrix", str(plan.request.imatrix)]
    on_progress(Progress("quantising", 0.0))
    run_converter("quantize", arguments, on_progress, log_notice(plan.name))


def _find_full_precision(plan: FilePlan, stores: Stores) -> Path | None:
    """Return an earlier conversion of the checkpoint in its published or in single precision; None if there is none.

    Single precision represents the numbers of every type in which checkpoints are published.
    """
    entries = (stores.converted.find(conversion_key(plan.decision, label)) for label in ("", "F32"))
    return next((entry.path for entry in entries if entry is not None), None)


def _needed_bytes(plan: FilePlan, target: Target) -> int:
    source = plan.decision.listing.size_of(name for name in plan.decision.names if name.endswith(".safetensors"))
    return plan.output_bytes + (0 if target.is_full_precision else source)


def _check_precision(path: Path) -> None:
    """Raise UnusableModel for weights that are quantised already, and lose too much if they are quantised again."""
    label = read_header(path).quantization
    if normalise(label) not in {normalise(known) for known in _REQUANTISABLE}:
        raise UnusableModel(
            f"{path}: It is quantised already ({label}), and would lose too much by isq. Remove isq, or name the "
            "model's full-precision files."
        )
