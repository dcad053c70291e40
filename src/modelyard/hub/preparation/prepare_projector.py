"""Puts the projector of a plan beside its language model: downloaded, or converted from the checkpoint's towers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from modelyard.errors import ConversionFailed, UnusableModel
from modelyard.hub.preparation.convert_checkpoint import Output, convert_checkpoint
from modelyard.hub.preparation.plan import FilePlan, Stores
from modelyard.hub.preparation.projector_plan import ProjectorConversion
from modelyard.hub.select.model_files import ModelFiles
from modelyard.hub.select.projector import with_projector
from modelyard.hub.sources.converted import Entry
from modelyard.hub.sources.disk import check_room
from modelyard.hub.sources.listing import OnProgress
from modelyard.hub.sources.llama_converter import check_converter

logger = logging.getLogger(__name__)


def attach_projector(plan: FilePlan, files: ModelFiles, stores: Stores, on_progress: OnProgress) -> ModelFiles:
    """``files``, the language model of ``plan``, with the projector that the plan names or makes.

    A model whose towers llama.cpp's converter cannot convert is served as text, with a warning, unless it is asked for
    as a multimodal one.

    Raises:
        ConversionFailed: kind is "multimodal", and the towers cannot be converted.
        UnusableModel: the projector is damaged or does not fit the model, cannot be downloaded, or it was given up.
    """
    is_required = plan.request.kind == "multimodal" or plan.request.mmproj is not None
    if plan.projector.warning:
        return _without(files, plan.projector.warning)
    if plan.projector.name:
        path = stores.hub.fetch(plan.decision.listing, (plan.projector.name,), on_progress) / plan.projector.name
    elif plan.projector.conversion is not None:
        conversion = plan.projector.conversion
        try:
            entry = conversion.made or _make(plan, conversion, stores, on_progress)
        except ConversionFailed as failed:
            if is_required:
                raise
            return _without(files, f"The model is served as text: {failed}")
        stores.converted.use(entry)
        path = entry.path
    else:
        return files
    try:
        files = with_projector(files, path, is_required=is_required)
    except UnusableModel as unusable:
        if is_required or plan.projector.name:
            raise
        # Nobody asked for it: it was made of the checkpoint, and llama.cpp cannot be given it.
        return _without(files, f"The model is served as text: {unusable}")
    stores.projectors.check(files, on_progress)
    return files


def _without(files: ModelFiles, warning: str) -> ModelFiles:
    logger.warning("%s: %s", files.paths[0].name, warning)
    return replace(files, warnings=(*files.warnings, warning))


@contextmanager
def making_beside(plan: FilePlan, stores: Stores, on_progress: OnProgress) -> Iterator[Output | None]:
    """The projector that the conversion of a language model is to write, too: what it shares takes longest.

    It is kept if it is there in the end; None where there is nothing to write.

    Raises:
        UnusableModel: it was given up, or there is no room for it.
    """
    conversion = plan.projector.conversion
    if conversion is None or conversion.made is not None or stores.projectors.failure(conversion.key) is not None:
        yield None
        return
    with stores.converted.making(conversion.key, on_progress) as place:
        if stores.converted.find(conversion.key) is not None:
            yield None
            return
        output = _output(plan, conversion, place)
        yield output
        if output.path.exists():
            _keep(plan, conversion, stores, place, output)


def _make(plan: FilePlan, conversion: ProjectorConversion, stores: Stores, on_progress: OnProgress) -> Entry:
    if (reason := stores.projectors.failure(conversion.key)) is not None:
        raise ConversionFailed(reason)
    if (made := stores.converted.find(conversion.key)) is not None:
        return made
    check_converter()
    folder = stores.hub.fetch(plan.decision.listing, plan.decision.names, on_progress)
    with stores.converted.making(conversion.key, on_progress) as place:
        made = stores.converted.find(conversion.key)
        if made is not None:
            return made
        output = _output(plan, conversion, place)
        try:
            convert_checkpoint(plan, folder, None, output, on_progress)
        except ConversionFailed as failed:
            stores.projectors.note_failure(conversion.key, str(failed))
            raise
        return _keep(plan, conversion, stores, place, output)


def _output(plan: FilePlan, conversion: ProjectorConversion, place: Path) -> Output:
    check_room(place, conversion.output_bytes, f"The projector of '{plan.request.source}' cannot be converted")
    return Output(place / "projector.partial", conversion.label.lower())


def _keep(plan: FilePlan, conversion: ProjectorConversion, stores: Stores, place: Path, output: Output) -> Entry:
    name = f"mmproj-{plan.name}-{conversion.label}.gguf"
    return stores.converted.finish(place, output.path, name=name, source=plan.request.source, label=conversion.label)
