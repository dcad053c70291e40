"""Finds the files of a model, with those of its draft model and of its adapters."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from modelyard.config import Model
from modelyard.errors import UnusableModel
from modelyard.hub import POOLED_KINDS, FileRequest, ModelFiles
from modelyard.yard.runtime.model_files import ModelFileProvider
from modelyard.yard.runtime.model_spec import ModelSpec, SpecFiles, draft_of, file_request


async def find_files(
    spec: ModelSpec, provider: ModelFileProvider, fits: Callable[[ModelFiles], bool], prepared_as: str = ""
) -> SpecFiles:
    """Return the files of a model, of its draft model and of its adapters.

    Args:
        spec: the model.
        provider: finds and prepares files.
        fits: whether the model on such files fits the memory by itself. Called on any thread.
        prepared_as: name of the model whose files are prepared; "": nothing is prepared, and the files are described as
            they will be.

    Raises:
        UnusableModel: some of them are missing or unusable.
    """

    async def find(request: FileRequest) -> ModelFiles:
        return await (provider.get(prepared_as, request, fits) if prepared_as else provider.estimate(request, fits))

    files = await find(file_request(spec.config, spec.model))
    adapters = await (
        provider.get_adapters(prepared_as, spec.model, files)
        if prepared_as
        else provider.estimate_adapters(spec.model, files)
    )
    draft = draft_of(spec)
    if draft is None:
        return SpecFiles(files, None, adapters)
    if files.kind in POOLED_KINDS:
        raise UnusableModel(
            f"It generates no text, so that nothing can be drafted for it. Remove draft = '{draft.id}'."
        )
    try:
        draft_files = await find(file_request(spec.config, draft))
        if draft_files.kind in POOLED_KINDS:
            raise UnusableModel("It generates no text.")
        return SpecFiles(files, draft_files, adapters)
    except UnusableModel as unusable:
        shown = str(unusable).replace(draft.source, Path(draft.source).name)
        raise UnusableModel(f"Its draft model '{draft.id}': {shown}") from unusable


def without_path(model: Model, unusable: UnusableModel) -> UnusableModel:
    """Return the error without the folder of the model: clients must not read paths of the server."""
    source = Path(model.source)
    text = str(unusable).replace(str(source), source.name)
    # Other files of the folder, such as shards, are named without it, too.
    return UnusableModel(text.replace(f"{source.parent}{os.sep}", "") if source.is_absolute() else text)
