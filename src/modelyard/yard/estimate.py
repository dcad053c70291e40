"""Estimates what serving a model takes, without downloading, converting or loading anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from modelyard.config import Config
from modelyard.engine.placing import LlamaDevice
from modelyard.errors import UnusableModel
from modelyard.hub import FilePlan, estimate_files
from modelyard.hub.preparation.projector_plan import ProjectorPlan
from modelyard.hub.sources.converted import Entry
from modelyard.hub.sources.listing import ListedFile
from modelyard.protocol.placement import HOST_NAME
from modelyard.system.memory import available_bytes
from modelyard.yard.from_config import memory_budget, stores_of
from modelyard.yard.memory.arrangement import arranged
from modelyard.yard.memory.cache_bytes import context_cells
from modelyard.yard.memory.fit_context import fit_alone
from modelyard.yard.runtime.adapter_files import adapters_ahead, find_adapters
from modelyard.yard.runtime.configured_devices import list_budgeted_devices
from modelyard.yard.runtime.device_estimate import DeviceEstimate, estimate_devices
from modelyard.yard.runtime.fitting import context_range, placing, with_chosen_context, with_model
from modelyard.yard.runtime.model_checks import misplacement, resolve_among
from modelyard.yard.runtime.model_choices import choices_of
from modelyard.yard.runtime.model_spec import ModelSpec, SpecFiles, plan_of
from modelyard.yard.runtime.placements import needs_devices, placement_of
from modelyard.yard.stats.placement_text import planned_text


@dataclass(frozen=True, slots=True)
class ModelEstimate:
    """What the only model of a configuration would take.

    Attributes:
        source: the configured name, path or hub id.
        origin: the folder or repository that its files come from.
        commit: of that repository; "" for a folder.
        reasons: how the files were selected, in sentences.
        files: the files of the model.
        quantization: type of its weights.
        conversion: what is done to the files on this machine; "" for nothing.
        projector: where the projector of a multimodal model comes from; "" where there is none.
        warnings: what the model cannot do here although its makers promise it.
        download_bytes: size of what is downloaded.
        weights_bytes, context_bytes: memory of the host for the weights, and for everything else.
        context_length: tokens of its context, as a server with this model alone would choose it.
        context_reason: why, without a full stop.
        budget_bytes: budget of all models, of the host's memory.
        placement: where a server with this model alone would put it.
        is_fitting: whether it fits the budgets.
        devices: what it takes of each device that it is put on; () where that is none, or is not known.
        devices_are_planned: whether llama.cpp has planned it, and it is exact; else it is predicted.
    """

    source: str
    origin: str
    commit: str
    reasons: tuple[str, ...]
    files: tuple[ListedFile, ...]
    quantization: str
    conversion: str
    projector: str
    warnings: tuple[str, ...]
    download_bytes: int
    weights_bytes: int
    context_bytes: int
    context_length: int
    context_reason: str
    budget_bytes: int
    placement: str
    is_fitting: bool
    devices: tuple[DeviceEstimate, ...]
    devices_are_planned: bool

    def as_facts(self) -> dict[str, Any]:
        """Return it as a mapping that JSON can hold."""
        return asdict(self)


def estimate_models(config: Config) -> list[ModelEstimate]:
    """Return what each model of ``config`` would take by itself, as a server with this model alone puts it.

    Models that other servers have are left out: they take nothing.

    Raises:
        ConfigError: a budget is of a device that does not exist.
        UnusableModel: files are not available, or cannot be served, or a device does not exist.
    """
    devices, budgets = budgeted_devices(config)
    one_by_one = (config.model_copy(update={"models": (model,)}) for model in config.models if not model.is_remote)
    return [_estimated(ModelSpec(each, each.models[0]), budgets, devices) for each in one_by_one]


def budgeted_devices(config: Config) -> tuple[tuple[LlamaDevice, ...], dict[str, int]]:
    """Return the devices of the machine, and the budgets of all pools, that of the host among them.

    Raises:
        ConfigError: a budget is of a device that does not exist.
        UnusableModel: devices are needed and cannot be listed, or one does not exist.
    """
    devices, budgets_of_devices = _devices(config)
    return devices, {HOST_NAME: memory_budget(config, available_bytes()), **budgets_of_devices}


def _devices(config: Config) -> tuple[tuple[LlamaDevice, ...], dict[str, int]]:
    """Return the devices of the machine, and their budgets; none where llama.cpp cannot be loaded and none are needed.

    Raises:
        ConfigError: a budget is of a device that does not exist.
        UnusableModel: devices are needed and cannot be listed, or one does not exist.
    """
    specs = [ModelSpec(config, model) for model in config.models if not model.is_remote]
    needing = [spec for spec in specs if needs_devices(placement_of(config, spec.model))]
    try:
        found, budgets = list_budgeted_devices(config)
    except UnusableModel:
        # Files and memory of a model that may be anywhere are shown also where llama.cpp cannot be loaded.
        if needing:
            raise
        return (), {}
    for spec in needing:
        if problem := misplacement(spec, lambda placement: resolve_among(placement, found)):
            raise UnusableModel(problem)
    return found, budgets


def _estimated(spec: ModelSpec, budgets: Mapping[str, int], found: Sequence[LlamaDevice]) -> ModelEstimate:
    config, model, stores = spec.config, spec.model, stores_of(spec.config)

    def fits(plan: FilePlan) -> bool:
        files = SpecFiles(estimate_files(plan, stores), None, adapters_ahead(model))
        return bool(arranged({"": choices_of(spec, files, found)}, budgets))

    plan = plan_of(config, model, stores, fits)
    # Once, because it reads headers over the network.
    estimated = estimate_files(plan, stores)
    files = SpecFiles(estimated, None, find_adapters(model, estimated, stores))
    place = placing(spec, lambda fitted: choices_of(fitted, files, found), is_isolated=lambda: False)
    context = fit_alone(context_range(model, estimated, place), budgets)
    spec = with_model(spec, with_chosen_context(model, context))
    choices = choices_of(spec, files, found)
    fitting = arranged({"": choices}, budgets)
    placed = fitting.get("", choices[0])
    devices, are_planned = estimate_devices(spec, plan, stores, estimated, placed.placement, found, budgets)
    listing = plan.decision.listing
    names = {*plan.decision.names, plan.projector.name}
    return ModelEstimate(
        source=model.model_id,
        origin=str(listing.folder) if listing.hub_id is None else listing.hub_id.repo,
        commit=listing.commit,
        reasons=(*((listing.note,) if listing.note else ()), *plan.decision.reasons),
        files=tuple(file for file in listing.files if file.name in names),
        quantization=estimated.quantization,
        conversion=_conversion(plan.key, plan.made, plan.output_bytes),
        projector=_projector(plan.projector),
        warnings=estimated.warnings,
        download_bytes=plan.download_bytes,
        weights_bytes=placed.weights_bytes,
        context_bytes=placed.context_bytes,
        context_length=context_cells(estimated.header, spec.model.device.fixed_seq_len),
        context_reason=context.reason,
        budget_bytes=budgets[HOST_NAME],
        placement=planned_text(placed, estimated.header),
        is_fitting=bool(fitting),
        devices=devices,
        devices_are_planned=are_planned,
    )


def _conversion(key: str, made: Entry | None, output_bytes: int) -> str:
    if made is not None:
        return f"done before: {made.path}"
    if not key:
        return ""
    return f"on this machine, into about {output_bytes / 1e6:,.0f} MB"


def _projector(plan: ProjectorPlan) -> str:
    if plan.conversion is None:
        return plan.name
    made = plan.conversion.made
    conversion = _conversion(plan.conversion.key, made, plan.conversion.output_bytes)
    return f"{plan.conversion.label}, made of the checkpoint: {conversion}"
