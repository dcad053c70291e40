"""Applies a new configuration while models serve.

A model whose settings changed gets a new name in the residency, and so a new engine beside the old one. The old model
is retired: it serves its present requests, and is removed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

from modelyard.config import Config
from modelyard.config.diff import ConfigDiff, diff
from modelyard.errors import ModelyardError
from modelyard.yard.devices import YardDevices
from modelyard.yard.directory import ModelDirectory
from modelyard.yard.from_config import memory_budget, model_policy
from modelyard.yard.memory.footprint import Choices
from modelyard.yard.requests.model_names import ResidencyName
from modelyard.yard.residency.choice import plan_load
from modelyard.yard.residency.events import BudgetChanged, ModelAdded, ModelRetired, ModelRetuned, Sized
from modelyard.yard.residency.eviction import Fit
from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.runtime.adapter_files import AdapterFiles
from modelyard.yard.runtime.controller import LifecycleController
from modelyard.yard.runtime.device_watch import DeviceWatch
from modelyard.yard.runtime.engine_factory import EngineFactory
from modelyard.yard.runtime.model_checks import side_by_side
from modelyard.yard.runtime.model_spec import ModelSpec

logger = logging.getLogger(__name__)

How = Literal["loads the new one first", "unloads the old one first", "is not loaded"]


@dataclass(frozen=True, slots=True)
class Reconfiguration:
    """What a new configuration changes.

    Attributes:
        diff: the difference, by ids of models and names of keys.
        replaced: for each changed model, in which order its old and new engine are loaded and unloaded.
        failed: changed models whose new settings could not be loaded, with the reason; they keep the old settings.
    """

    diff: ConfigDiff
    replaced: dict[str, How]
    failed: dict[str, str]

    def summary(self) -> str:
        """Return what has changed, by models and keys, as one line for the log."""
        changes = self.diff
        parts = [
            f"{what} {', '.join(models)}"
            for what, models in (("added", changes.added), ("removed", changes.removed))
            if models
        ]
        for model, keys in changes.changed.items():
            how = "it serves on with the old settings" if model in self.failed else f"it {self.replaced[model]}"
            parts.append(f"{model}: {', '.join(keys)} ({how})")
        parts += [f"{model}: {', '.join(keys)}" for model, keys in changes.retuned.items()]
        if changes.memory:
            parts.append(f"memory: {', '.join(changes.memory)}")
        if changes.mcp:
            parts.append(f"mcp: {', '.join(changes.mcp)}")
        if changes.server:
            parts.append(f"takes effect with the next start: {', '.join(changes.server)}")
        return "; ".join(parts) or "nothing has changed"


class Reconfigurer:
    """Replaces the configuration of a yard that serves, one change at a time.

    Args:
        directory, factory, controller, devices: of the yard.
        available_bytes: memory of the machine before any model was loaded.
    """

    def __init__(
        self,
        directory: ModelDirectory,
        factory: EngineFactory,
        controller: LifecycleController,
        devices: YardDevices,
        available_bytes: int,
    ) -> None:
        self._directory = directory
        self._factory = factory
        self._controller = controller
        self._devices = devices
        self._available_bytes = available_bytes
        self._changing = asyncio.Lock()

    async def reconfigure(
        self, change: Callable[[Config], Config], *, dry_run: bool, keeps_tuned: bool
    ) -> Reconfiguration:
        """Serve what ``change`` returns for the configuration in force; see ``Yard.reconfigure`` and ``Yard.revise``.

        Raises:
            ConfigError, InsufficientMemory: a file of a new or changed model is missing or unusable, or it does not
                fit; nothing has changed.
        """
        async with self._changing:
            config = change(self._directory.config)
            await self._devices.list(config)
            self._devices.follow(self._controller)
            return await _reconfigure(
                self._directory,
                self._factory,
                self._controller,
                config,
                self._available_bytes,
                self._devices.watch,
                dry_run=dry_run,
                keeps_tuned=keeps_tuned,
            )


async def _reconfigure(
    directory: ModelDirectory,
    factory: EngineFactory,
    controller: LifecycleController,
    config: Config,
    available_bytes: int,
    devices: DeviceWatch | None,
    *,
    dry_run: bool,
    keeps_tuned: bool,
) -> Reconfiguration:
    """Serve ``config`` from now on; one call at a time.

    Args:
        directory, factory, controller: of the yard that serves.
        config: the new configuration.
        available_bytes: memory of the machine before any model was loaded.
        devices: those of the yard, which have accepted the configuration's budgets; None: it uses none.
        dry_run: only return what would change.
        keeps_tuned: whether what ``Yard.retune`` has changed stays.

    Raises:
        ConfigError, InsufficientMemory: as ``Reconfigurer.reconfigure``.
    """
    changes = diff(directory.config, config, directory.started_config)
    budget = factory.memory.budget_bytes
    if "budget" in changes.memory:
        factory.memory.budget_bytes = memory_budget(config, available_bytes)
    if devices is not None:
        factory.memory.device_budgets = devices.budgets_with(config.memory.devices)
    refitted = _refitted(changes, directory, factory, config)
    models = {model.id: model for model in config.models}
    fresh = {model: _unused_name(factory, model) for model in (*changes.added, *changes.changed, *refitted)}
    for model, name in fresh.items():
        factory.specs[name] = ModelSpec(config, models[model])
    for model, old in refitted.items():
        factory.fitter.keep_quant(old, fresh[model])
    # Models that were found or added are sized when they are asked for, as those of the start are that are loaded on
    # demand: one that does not fit must not keep others out, and one that is downloaded has no files yet.
    unsized = {fresh[model] for model in changes.added if models[model].origin != "configured"}
    try:
        footprints = await factory.check([name for name in fresh.values() if name not in unsized])
        adapters = await _changed_adapters(changes, directory, factory, config)
    except BaseException:
        _undo(factory, fresh.values(), budget, devices)
        raise
    for model, old in refitted.items():
        if factory.fitter.contexts[fresh[model]].length == factory.fitter.contexts[old].length:
            factory.discard(fresh.pop(model))
        else:
            changed = {**changes.changed, model: tuple(f"memory.{key}" for key in _fitting_keys(changes))}
            retuned = {other: keys for other, keys in changes.retuned.items() if other != model}
            changes = replace(changes, changed=changed, retuned=retuned)
    changes = changes if keeps_tuned else _with_tuned_back(changes, directory, controller.state, config)
    state = controller.state._replace(
        budget_bytes=factory.memory.budget_bytes, device_budgets=factory.memory.device_budgets
    )
    names = directory.residency_names
    how = {model: _how(state, names[model], fresh[model], footprints[fresh[model]]) for model in changes.changed}
    if dry_run:
        _undo(factory, fresh.values(), budget, devices)
        return Reconfiguration(changes, how, {})

    if "budget" in changes.memory:
        controller.feed(BudgetChanged(factory.memory.budget_bytes))
    if devices is not None:
        factory.memory.device_budgets = devices.configure(config.memory.devices)
    for name in fresh.values():
        spec = factory.specs[name]
        controller.feed(ModelAdded(name, model_policy(config, spec.model)))
        if name not in unsized:
            controller.feed(Sized(name, footprints[name][0], footprints[name][1:]))
    for model in changes.retuned:
        _retune(directory.residency_names[model], ModelSpec(config, models[model]), factory, controller)
    _replace_adapters(adapters, directory, factory, controller)
    # No request is routed to the new engines yet, so a load that fails affects none.
    beside = [model for model in changes.changed if how[model] == "loads the new one first"]
    outcomes = await asyncio.gather(*(controller.reload(fresh[model]) for model in beside), return_exceptions=True)
    failed = {model: str(e) for model, e in zip(beside, outcomes, strict=True) if isinstance(e, ModelyardError)}
    for model in failed:
        logger.error(
            "The new settings of %s cannot be loaded, it serves on with the old ones: %s", model, failed[model]
        )
        controller.feed(ModelRetired(fresh[model]))
    for model in (*changes.removed, *(model for model in changes.changed if model not in failed)):
        controller.feed(ModelRetired(directory.residency_names.pop(model)))
    directory.residency_names |= {model: name for model, name in fresh.items() if model not in failed}
    directory.replace_config(config)
    afterwards = [model for model in changes.changed if how[model] == "unloads the old one first"]
    afterwards += [model for model in changes.added if models[model].load == "startup"]
    await asyncio.gather(*(controller.reload(fresh[model]) for model in afterwards), return_exceptions=True)
    return Reconfiguration(changes, how, failed)


def _retune(name: ResidencyName, spec: ModelSpec, factory: EngineFactory, controller: LifecycleController) -> None:
    """Serve a model with other settings that its engine does not depend on."""
    factory.specs[name] = factory.fitter.retuned(name, spec)
    controller.feed(ModelRetuned(name, model_policy(spec.config, spec.model)))
    controller.set_share(name, spec.model.weight, spec.model.priority)


def _replace_adapters(
    adapters: Mapping[str, AdapterFiles | None],
    directory: ModelDirectory,
    factory: EngineFactory,
    controller: LifecycleController,
) -> None:
    """Give models that keep their engine other adapters."""
    for model, files in adapters.items():
        name = directory.residency_names[model]
        controller.set_adapters(name, files, factory.replace_adapters(name, files))


async def _changed_adapters(
    changes: ConfigDiff, directory: ModelDirectory, factory: EngineFactory, config: Config
) -> dict[str, AdapterFiles | None]:
    """Return the adapters of models that keep their engine and get others; None where files are not known yet.

    Raises:
        UnusableModels: some of them are missing, damaged, or for another model.
    """
    models = {model.id: model for model in config.models}
    ids = {model: model for model, keys in changes.retuned.items() if "adapters" in keys}

    async def find(model: str) -> AdapterFiles | None:
        name = directory.residency_names[model]
        return await factory.find_adapters(name, ModelSpec(config, models[model]))

    return await side_by_side(ids, find)


def _with_tuned_back(changes: ConfigDiff, directory: ModelDirectory, state: Residency, config: Config) -> ConfigDiff:
    """Return ``changes`` with the models that ``Yard.retune`` has changed, which are treated as configured again."""
    retuned = dict(changes.retuned)
    for model in config.models:
        name = directory.residency_names.get(model.id)
        if name is None or model.id in changes.changed:
            continue
        present, configured = state.models[name].policy, model_policy(config, model)
        keys = [*retuned.get(model.id, ())]
        keys += ["pinned"] * (present.is_pinned != configured.is_pinned and "pinned" not in keys)
        keys += ["priority"] * (present.priority != configured.priority and "priority" not in keys)
        if keys:
            retuned[model.id] = tuple(keys)
    return replace(changes, retuned=retuned)


def _fitting_keys(changes: ConfigDiff) -> tuple[str, ...]:
    """Return the changed keys of ``[memory]`` that contexts depend on."""
    return tuple(key for key in changes.memory if key in ("budget", "devices"))


def _refitted(
    changes: ConfigDiff, directory: ModelDirectory, factory: EngineFactory, config: Config
) -> dict[str, ResidencyName]:
    """Return the models whose contexts may differ with the new memory budgets, with their names in the residency.

    Other models keep the contexts that were chosen for them: clients rely on the length that is listed.
    """
    if not _fitting_keys(changes):
        return {}
    names = directory.residency_names
    return {
        model.id: name
        for model in config.models
        if model.id not in changes.changed
        and model.device.fixed_seq_len is None
        and (name := names.get(model.id)) is not None
        and name in factory.fitter.contexts
    }


def _how(state: Residency, present: ResidencyName, fresh: ResidencyName, choices: Choices) -> How:
    """Return in which order a changed model is replaced: the new one first, where there is memory for both.

    Args:
        state: with the new budgets.
        present, fresh: names of the old and of the new model in the residency.
        choices: footprints of the new one.
    """
    old = state.models[present]
    has_engine = old.is_resident and old.load_state is not LoadState.PARKED
    if not has_engine and not old.queue:
        return "is not loaded"
    candidate = ModelState(old.policy, footprint=choices[0], choices=choices)
    eviction = plan_load(state._replace(models={**state.models, fresh: candidate}), fresh)
    return "loads the new one first" if eviction.fit is Fit.FITS else "unloads the old one first"


def _unused_name(factory: EngineFactory, model: str) -> ResidencyName:
    if model not in factory.specs:
        return ResidencyName(model)
    return next(ResidencyName(name) for n in count(2) if (name := f"{model} #{n}") not in factory.specs)


def _undo(factory: EngineFactory, fresh: Iterable[ResidencyName], budget: int, devices: DeviceWatch | None) -> None:
    """Drop new versions of models, and the budgets that they were sized with."""
    for name in fresh:
        factory.discard(name)
    factory.memory.budget_bytes = budget
    if devices is not None:
        factory.memory.device_budgets = devices.budgets
