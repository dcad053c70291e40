"""Adapters that requests load and unload, and their scales, until the configuration is read again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from modelyard.config import Adapter, Config, Model
from modelyard.errors import ConfigError, InsufficientMemory, InvalidRequest, ModelNotFound, UnusableModel
from modelyard.yard.residency.eviction import Fit, plan_without_eviction
from modelyard.yard.residency.room import footprint_of
from modelyard.yard.runtime.adapter_files import adapter_bytes
from modelyard.yard.yard import Yard


async def load_adapter(yard: Yard, base: str | None, adapter: Adapter, *, replaces: bool = False) -> str:
    """Serve a model with one more adapter; return the id of the model with it.

    Args:
        yard: the models.
        base: id or alias of the model; None: the default.
        adapter: the adapter.
        replaces: whether one of the same name is replaced.

    Raises:
        ModelNotFound, ModelRequired: there is no such model.
        InvalidRequest: the model has an adapter of that name, or the file does not fit the model.
        InsufficientMemory: the model is loaded, and there is no memory for it.
    """
    async with yard.adapters_lock:
        model = yard.configured(base)
        if not replaces and any(other.name == adapter.name for other in model.adapters):
            raise InvalidRequest(
                f"'{model.id}' has an adapter '{adapter.name}' already. Unload it first, or set load_inplace.",
                "lora_name",
            )
        others = tuple(other for other in model.adapters if other.name != adapter.name)
        await _set_adapters(yard, model, (*others, adapter))
    return yard.configured(model.id).adapter_id(adapter)


async def unload_adapter(yard: Yard, name: str, base: str | None) -> None:
    """Drop an adapter. Answers that use it go on, and later requests for it are refused.

    Args:
        yard: the models.
        name: of the adapter, or of the model with it.
        base: id or alias of the model; None: that of the only model with such an adapter.

    Raises:
        ModelNotFound: there is no such adapter.
    """
    async with yard.adapters_lock:
        full = name if base is None else f"{yard.configured(base).id}::{name}"
        model = yard.configured(full)
        uses = yard.directory.router.adapters_of(full)
        if len(uses) != 1:
            raise ModelNotFound(full, [model.adapter_id(adapter) for adapter in model.adapters])
        left = tuple(adapter for adapter in model.adapters if adapter.name != uses[0].name)
        await _set_adapters(yard, model, left)


async def set_adapters(yard: Yard, name: str, adapters: tuple[Adapter, ...]) -> None:
    """Serve a model with these adapters and no others.

    Args:
        yard: the models.
        name: id of the model.
        adapters: the adapters.

    Raises:
        ModelNotFound: there is no such model.
        InvalidRequest: a file does not fit the model.
        InsufficientMemory: the model is loaded, and there is no memory for them.
    """
    async with yard.adapters_lock:
        model = yard.configured(name)
        if model.adapters != adapters:
            await _set_adapters(yard, model, adapters)


def apply_scales(yard: Yard, base: str | None, scales: Sequence[tuple[int, float]]) -> None:
    """Have requests that name no adapter use these, by their numbers with scales; all others have a scale of 0.

    Raises:
        ModelNotFound, ModelRequired: there is no such model.
        InvalidRequest: it has no adapter of such a number.
    """
    model = yard.configured(base)
    uses = yard.directory.adapters_of(None, model.id, scales)
    yard.directory.set_scales[model.id] = {use.name: use.scale for use in uses if use.scale}


async def _set_adapters(yard: Yard, model: Model, adapters: tuple[Adapter, ...]) -> None:
    added = [adapter.path for adapter in adapters if adapter not in model.adapters]
    if (nodes := yard.factory.remotes.nodes_of(model)) is not None:
        await nodes.set_adapters(model.id, model.adapters, adapters)
    else:
        for path in added:
            await _check_room(yard, model, path)
    try:
        await yard.revise(_with_adapters(model.id, adapters))
    except ConfigError as error:
        if nodes is not None:
            await nodes.set_adapters(model.id, adapters, model.adapters)
        # Clients must not read paths of the server.
        shown = str(error)
        for path in added:
            shown = shown.replace(str(path), path.name)
        raise InvalidRequest(shown, "lora_path") from error


async def _check_room(yard: Yard, model: Model, path: Path) -> None:
    """Refuse an adapter of a loaded model that there is no memory for: nothing is unloaded for it."""
    name = yard.directory.residency_names[model.id]
    if not yard.controller.state.models[name].is_resident:
        return
    try:
        size_bytes = await asyncio.to_thread(adapter_bytes, path)
    except UnusableModel as unusable:
        raise InvalidRequest(str(unusable).replace(str(path), path.name), "lora_path") from unusable
    state = yard.controller.state
    # It may have gone while the file was read.
    if name not in state.models or not state.models[name].is_resident:
        return
    needed = footprint_of(state.models[name]).with_added(size_bytes)
    if plan_without_eviction(state, name, needed).fit is not Fit.FITS:
        raise InsufficientMemory(model.id, needed.total_bytes, state.budget_bytes, ())


def _with_adapters(model_id: str, adapters: tuple[Adapter, ...]) -> Callable[[Config], Config]:
    def change(config: Config) -> Config:
        models = (
            model.model_copy(update={"adapters": adapters}) if model.id == model_id else model
            for model in config.models
        )
        return config.model_copy(update={"models": tuple(models)})

    return change
