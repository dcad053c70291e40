"""Downloads or converts the projector of a plan, and adds it to the files of its language model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from modelyard.errors import ConversionFailed, UnusableModel
from modelyard.hub.preparation.convert_checkpoint import GgufOutput, convert_checkpoint
from modelyard.hub.preparation.plan import FilePlan, Stores
from modelyard.hub.preparation.projector_plan import ProjectorConversion
from modelyard.hub.select.model_files import ModelFiles
from modelyard.hub.select.projector import with_projector
from modelyard.hub.sources.converted import Entry
from modelyard.hub.sources.disk import check_disk_space
from modelyard.hub.sources.listing import OnProgress
from modelyard.hub.sources.llama_converter import check_converter

logger = logging.getLogger(__name__)


def attach_projector(plan: FilePlan, files: ModelFiles, stores: Stores, on_progress: OnProgress) -> ModelFiles:
    """Return ``files``, the language model of ``plan``, with the plan's projector.

    If llama.cpp's converter cannot convert the towers, the model is served as text, with a warning, unless a projector
    is required: kind is "multimodal", or mmproj names one.

    Raises:
        ConversionFailed: a projector is required, and the towers cannot be converted.
        UnusableModel: the projector is damaged, does not fit the model, or cannot be downloaded; or ``on_progress``
            returned False.
    """
    is_required = plan.request.kind == "multimodal" or plan.request.mmproj is not None
    if plan.projector.warning:
        return _without_projector(files, plan.projector.warning)
    if plan.projector.name:
        path = stores.hub.fetch(plan.decision.listing, (plan.projector.name,), on_progress) / plan.projector.name
    elif plan.projector.conversion is not None:
        conversion = plan.projector.conversion
        try:
            entry = conversion.made or _convert(plan, conversion, stores, on_progress)
        except ConversionFailed as failed:
            if is_required:
                raise
            return _without_projector(files, f"The model is served as text: {failed}")
        stores.converted.mark_used(entry)
        path = entry.path
    else:
        return files
    try:
        files = with_projector(files, path, is_required=is_required)
    except UnusableModel as unusable:
        if is_required or plan.projector.name:
            raise
        # The projector was converted from the checkpoint without a request for it, so the model works without it.
        return _without_projector(files, f"The model is served as text: {unusable}")
    stores.projectors.check(files, on_progress)
    return files


def _without_projector(files: ModelFiles, warning: str) -> ModelFiles:
    logger.warning("%s: %s", files.paths[0].name, warning)
    return replace(files, warnings=(*files.warnings, warning))


@contextmanager
def projector_output(plan: FilePlan, stores: Stores, on_progress: OnProgress) -> Iterator[GgufOutput | None]:
    """Yield the projector that the conversion of a language model writes as well; None if it has none to write.

    One process converts both, because starting the converter takes longest. The projector is kept if its file exists
    at the end of the context.

    Raises:
        UnusableModel: ``on_progress`` returned False, or the disk has no room for the projector.
    """
    conversion = plan.projector.conversion
    if conversion is None or conversion.made is not None or stores.projectors.failure(conversion.key) is not None:
        yield None
        return
    with stores.converted.locked(conversion.key, on_progress) as entry_folder:
        if stores.converted.find(conversion.key) is not None:
            yield None
            return
        output = _prepare_output(plan, conversion, entry_folder)
        yield output
        if output.path.exists():
            _complete(plan, conversion, stores, entry_folder, output)


def _convert(plan: FilePlan, conversion: ProjectorConversion, stores: Stores, on_progress: OnProgress) -> Entry:
    if (reason := stores.projectors.failure(conversion.key)) is not None:
        raise ConversionFailed(reason)
    if (entry := stores.converted.find(conversion.key)) is not None:
        return entry
    check_converter()
    folder = stores.hub.fetch(plan.decision.listing, plan.decision.names, on_progress)
    with stores.converted.locked(conversion.key, on_progress) as entry_folder:
        entry = stores.converted.find(conversion.key)
        if entry is not None:
            return entry
        output = _prepare_output(plan, conversion, entry_folder)
        try:
            convert_checkpoint(plan, folder, None, output, on_progress)
        except ConversionFailed as failed:
            stores.projectors.record_failure(conversion.key, str(failed))
            raise
        return _complete(plan, conversion, stores, entry_folder, output)


def _prepare_output(plan: FilePlan, conversion: ProjectorConversion, entry_folder: Path) -> GgufOutput:
    check_disk_space(
        entry_folder, conversion.output_bytes, f"The projector of '{plan.request.source}' cannot be converted"
    )
    return GgufOutput(entry_folder / "projector.partial", conversion.label.lower())


def _complete(
    plan: FilePlan, conversion: ProjectorConversion, stores: Stores, entry_folder: Path, output: GgufOutput
) -> Entry:
    name = f"mmproj-{plan.name}-{conversion.label}.gguf"
    return stores.converted.complete(
        entry_folder, output.path, name=name, source=plan.request.source, label=conversion.label
    )
