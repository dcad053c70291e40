"""Looks at the files of all models of a configuration, and plans their memory, without loading any of them.

The plan is what a server does when it starts: quantisations and contexts that the configuration leaves open are chosen
by what fits, for the models that are loaded at the start together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar

from modelyard.config import Config, Model, isolation_of, running_at_once
from modelyard.engine.placing import LlamaDevice
from modelyard.engine.settings import micro_batch
from modelyard.errors import ConfigError, RepositoryUnavailable, UnusableModel
from modelyard.hub import POOLED_KINDS, FilePlan, ModelFiles, Stores, estimate_files, plan_options
from modelyard.protocol.placement import HOST_NAME, ON_HOST
from modelyard.system.memory import available_bytes
from modelyard.yard.from_config import memory_budget, stores_of
from modelyard.yard.memory.arrangement import arranged, arranged_as
from modelyard.yard.memory.cache_bytes import context_cells
from modelyard.yard.memory.fit_context import ContextRange, FittedContext, fit_alone, fit_together
from modelyard.yard.memory.fit_quant import QuantOption, fit_quants
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.memory.placed_footprint import text_model
from modelyard.yard.memory.pools import taken_bytes
from modelyard.yard.memory.prediction import ContextSettings
from modelyard.yard.memory.token_time import token_seconds
from modelyard.yard.runtime.adapter_files import adapters_ahead, find_adapters
from modelyard.yard.runtime.attention import flash_attention
from modelyard.yard.runtime.configured_devices import list_budgeted_devices
from modelyard.yard.runtime.fitting import (
    FittedQuant,
    Placing,
    context_range,
    placing,
    quant_option,
    smaller_ones,
    with_chosen_context,
    with_model,
    with_quant,
)
from modelyard.yard.runtime.model_choices import choices_of
from modelyard.yard.runtime.model_spec import ModelSpec, SpecFiles, draft_of, file_request, plan_of
from modelyard.yard.stats.placement_text import planned_text


@dataclass(frozen=True, slots=True)
class InspectedModel:
    """What the files of a model say, and what is planned for it.

    Attributes:
        id: the model's id.
        model_id: the model as the configuration names it.
        load: when it is loaded, as configured.
        kind: what it does, such as "text"; "" where that is not known.
        quantization: the type of its weights; "" where that is not known.
        quant: the value for ``quant`` that was chosen for "auto"; "" where none was, or for full precision.
        quant_reason: why, without a full stop; "" where none was chosen.
        context_length: tokens that its context holds; None where that is not known.
        context_reason: why, without a full stop.
        is_fitted: whether its context was chosen by what fits: it is "auto", or was shortened.
        is_shortened: whether it would have a longer context with more memory.
        size_bytes: of its weights on disk; None where that is not known.
        memory_bytes: predicted memory of the loaded model; None where that is not known.
        pool_bytes: the same by pool of memory: of the host, and of each device.
        placement: where it is put; "" where that is not known.
        tokens_per_s: estimated speed of a stream there; None where that is not known.
        is_resident: whether it is loaded at the start, beside the models before it.
        problem: why it cannot be served, as a sentence; "" where it can.
        unchecked: why its files were not looked at, as a sentence; "" where they were.
        warnings: what it cannot do here although its makers promise it.
        remote: the servers that have it; () where it is a model of this machine.
    """

    id: str
    model_id: str
    load: str
    kind: str = ""
    quantization: str = ""
    quant: str = ""
    quant_reason: str = ""
    context_length: int | None = None
    context_reason: str = ""
    is_fitted: bool = False
    is_shortened: bool = False
    size_bytes: int | None = None
    memory_bytes: int | None = None
    pool_bytes: Mapping[str, int] = field(default_factory=dict)
    placement: str = ""
    tokens_per_s: float | None = None
    is_resident: bool = False
    problem: str = ""
    unchecked: str = ""
    warnings: tuple[str, ...] = ()
    remote: tuple[str, ...] = ()

    def as_facts(self) -> dict[str, Any]:
        """Return it as a mapping that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the files of all models say, and the memory that the models may take together.

    Attributes:
        models: in the order of the configuration.
        budget_bytes: memory of the host that they may take.
        budgets: memory that they may take, by pool.
        startup_pools: memory that those take, by pool, that are loaded at the start.
    """

    models: tuple[InspectedModel, ...]
    budget_bytes: int
    budgets: Mapping[str, int] = field(default_factory=dict)
    startup_pools: Mapping[str, int] = field(default_factory=dict)

    @property
    def oversized(self) -> tuple[InspectedModel, ...]:
        """The models that do not fit the budget even alone."""
        return tuple(
            model
            for model in self.models
            if any(size > self.budgets.get(pool, 0) for pool, size in model.pool_bytes.items())
        )

    @property
    def left_out(self) -> tuple[InspectedModel, ...]:
        """The models that are to be loaded at the start, and find no room beside the others there."""
        return tuple(
            model for model in self.models if model.load == "startup" and model.pool_bytes and not model.is_resident
        )

    @property
    def is_short(self) -> bool:
        """Whether more memory would change anything: a model does not fit, or has a shorter context."""
        return bool(self.oversized or self.left_out or any(model.is_shortened for model in self.models))

    @property
    def startup_bytes(self) -> int:
        """Predicted memory of the models that are loaded at the start, as far as it is known."""
        return sum(model.memory_bytes or 0 for model in self.models if model.load == "startup")


_T = TypeVar("_T")

_NO_BUDGETS: Mapping[str, int] = MappingProxyType({})


def inspect_models(
    config: Config,
    *,
    is_offline: bool = True,
    devices: Sequence[LlamaDevice] = (),
    budgets_of_devices: Mapping[str, int] = _NO_BUDGETS,
) -> Inspection:
    """Return what the files of the models say, by their headers, and what is planned for them.

    Args:
        config: the configuration.
        is_offline: whether the hub is not asked: of its models only those in the cache are looked at.
        devices: of the machine, with their memory; (): the models are planned for the host.
        budgets_of_devices: bytes that the models may take of each device, by its pool.

    Raises:
        ConfigError: the hub is asked, and its token is not where the configuration says.
    """
    budget = memory_budget(config, available_bytes())
    budgets = {HOST_NAME: budget, **budgets_of_devices}
    return _Planner(config, stores_of(config, is_offline=is_offline), budgets, devices).planned()


def inspect_on_this_machine(config: Config, *, is_offline: bool = True) -> Inspection:
    """Return what ``inspect_models`` does, with the devices of the machine where the host by itself is too small.

    Devices are listed only then, because that takes seconds. Where they cannot be listed, the host alone counts.
    """
    on_host = inspect_models(config, is_offline=is_offline)
    if not on_host.is_short:
        return on_host
    try:
        devices, budgets = list_budgeted_devices(config)
    except (ConfigError, UnusableModel):
        # ``device_problems`` lists what is wrong with them.
        return on_host
    if not budgets:
        return on_host
    return inspect_models(config, is_offline=is_offline, devices=devices, budgets_of_devices=budgets)


class _Planner:
    """Plans the models of one configuration.

    Args:
        config: the configuration.
        stores: where files are looked up.
        budgets: bytes of each pool of memory.
        devices: of the machine, with their memory; () without accelerators.
    """

    def __init__(
        self, config: Config, stores: Stores, budgets: Mapping[str, int], devices: Sequence[LlamaDevice] = ()
    ) -> None:
        self._config = config
        self._stores = stores
        self._budgets = budgets
        self._devices = devices
        self._specs = {model.id: ModelSpec(config, model) for model in config.models if not model.is_remote}
        self._failures: dict[str, UnusableModel] = {}
        self._quants: dict[str, FittedQuant] = {}

    def planned(self) -> Inspection:
        """Return the plan of all models."""
        startup = [name for name, spec in self._specs.items() if spec.model.load == "startup"]
        self._choose_quants(startup)
        files = self._each(list(self._specs), self._files)
        ranges = {name: self._range(name, each) for name, each in files.items()}
        together = [name for name in startup if name in ranges]
        pinned = [name for name in together if self._specs[name].model.pinned]
        contexts = fit_together({name: ranges[name] for name in together}, self._budgets, (), pinned)
        for name, chosen in contexts.items():
            self._set_context(name, chosen)
        choices = {name: self._placing(name, files[name])(self._specs[name].model) for name in together}
        resident = arranged_as({name: contexts[name].placement for name in together}, choices, self._budgets)
        staying = [resident[name] for name in pinned if name in resident]
        placed: dict[str, Footprint] = {name: resident.get(name, choices[name][0]) for name in together}
        for name, each in ranges.items():
            if name not in placed:
                contexts[name] = fit_alone(each, self._budgets, staying)
                self._set_context(name, contexts[name])
                footprints = self._placing(name, files[name])(self._specs[name].model)
                placed[name] = next(iter(arranged({"": footprints}, self._budgets, staying).values()), footprints[0])
        inspected = {
            name: self._failed(name)
            if name in self._failures
            else self._inspected(name, files[name].model, contexts[name], placed[name], is_resident=name in resident)
            for name in self._specs
        }
        models = [
            InspectedModel(model.id, model.model_id, model.load, remote=model.remote)
            if model.is_remote
            else inspected[model.id]
            for model in self._config.models
        ]
        return Inspection(tuple(models), self._budgets[HOST_NAME], dict(self._budgets), taken_bytes(resident.values()))

    def _choose_quants(self, startup: Sequence[str]) -> None:
        """Choose the types of the models that are loaded at the start together, if there are several, or devices."""
        is_open = {name for name in startup if self._specs[name].model.quantization.quant == "auto"}
        if not is_open or (len(startup) < 2 and self._budgets.keys() <= {HOST_NAME}):
            return
        options = self._each(startup, lambda name: self._options(name, is_open=name in is_open))
        pinned = [name for name in options if self._specs[name].model.pinned]
        types = {name: [option for _, option in some] for name, some in options.items()}
        fitted = fit_quants(types, self._budgets, (), pinned)
        for name in is_open & options.keys():
            quant, option = options[name][fitted.chosen[name]]
            self._set_quant(name, FittedQuant(quant, option.label, fitted.reasons[name]))

    def _options(self, name: str, *, is_open: bool) -> list[tuple[str | None, QuantOption]]:
        spec = self._specs[name]
        request = file_request(spec.config, spec.model)
        plans = plan_options(request, self._stores) if is_open else (self._plan(spec),)
        found = [(plan.request.quant, estimate_files(plan, self._stores)) for plan in plans]
        draft, adapters = self._draft_files(spec), adapters_ahead(spec.model)
        return smaller_ones(
            [(quant, quant_option(each, self._range(name, SpecFiles(each, draft, adapters)))) for quant, each in found]
        )

    def _draft_files(self, spec: ModelSpec) -> ModelFiles | None:
        """Return the files of the draft model, if there is one; of one whose type is open, the smallest."""
        if (draft := draft_of(spec)) is None:
            return None
        try:
            if draft.quantization.quant == "auto":
                return estimate_files(plan_options(file_request(spec.config, draft), self._stores)[-1], self._stores)
            return estimate_files(self._plan(replace(spec, model=draft)), self._stores)
        except UnusableModel:
            # The plan of its model lists what is wrong with it.
            return None

    def _files(self, name: str) -> SpecFiles:
        plan = self._plan(self._specs[name])
        files = estimate_files(plan, self._stores)
        if self._specs[name].model.quantization.quant == "auto":
            self._set_quant(name, FittedQuant(plan.request.quant, files.quantization, "the best that fits by itself"))
        adapters = find_adapters(self._specs[name].model, files, self._stores)
        draft = draft_of(self._specs[name])
        if draft is None:
            return SpecFiles(files, None, adapters)
        draft_files = estimate_files(self._plan(replace(self._specs[name], model=draft)), self._stores)
        return SpecFiles(files, draft_files, adapters)

    def _plan(self, spec: ModelSpec) -> FilePlan:
        def fits(plan: FilePlan) -> bool:
            files = estimate_files(plan, self._stores)
            return bool(
                arranged(
                    {"": choices_of(spec, SpecFiles(files, None, adapters_ahead(spec.model)), self._devices)},
                    self._budgets,
                )
            )

        return plan_of(spec.config, spec.model, self._stores, fits)

    def _placing(self, name: str, files: SpecFiles) -> Placing:
        spec = self._specs[name]
        isolation = isolation_of(spec.config, spec.model)
        # What is not tried first has a process of its own. Records of deaths are left out: processes take little.
        is_isolated = isolation == "process" or (isolation == "auto" and not spec.config.runtime.trial)
        return placing(
            spec,
            lambda fitted: choices_of(fitted, files, self._devices),
            is_isolated=lambda: is_isolated,
        )

    def _range(self, name: str, files: SpecFiles) -> ContextRange:
        spec = self._specs[name]
        place = self._placing(name, files)
        return context_range(spec.model, files.model, place, is_tried=spec.config.runtime.trial)

    def _set_quant(self, name: str, chosen: FittedQuant) -> None:
        self._quants[name] = chosen
        model = with_quant(self._specs[name].model, chosen.quant)
        self._specs = {other: with_model(spec, model) for other, spec in self._specs.items()}

    def _set_context(self, name: str, chosen: FittedContext) -> None:
        spec = self._specs[name]
        self._specs[name] = with_model(spec, with_chosen_context(spec.model, chosen))

    def _each(self, names: Sequence[str], work: Callable[[str], _T]) -> dict[str, _T]:
        """Return the outcomes of ``work`` for the models that have not failed, and note those that fail with it."""
        outcomes = {}
        for name in names:
            if name not in self._failures:
                try:
                    outcomes[name] = work(name)
                except UnusableModel as failure:
                    self._failures[name] = failure
        return outcomes

    def _config_of(self, name: str) -> Model:
        return next(model for model in self._config.models if model.id == name)

    def _known(self, name: str) -> InspectedModel:
        model = self._specs[name].model
        return InspectedModel(model.id, model.model_id, model.load)

    def _failed(self, name: str) -> InspectedModel:
        failure, known = self._failures[name], self._known(name)
        if isinstance(failure, RepositoryUnavailable) and failure.why in ("offline", "unreachable"):
            return replace(known, unchecked=str(failure))
        return replace(known, problem=str(failure))

    def _inspected(
        self, name: str, files: ModelFiles, context: FittedContext, placed: Footprint, *, is_resident: bool
    ) -> InspectedModel:
        quant = self._quants.get(name)
        model = self._specs[name].model
        return replace(
            self._known(name),
            kind=files.kind,
            quantization=files.quantization,
            quant="" if quant is None else quant.quant or "",
            quant_reason="" if quant is None else quant.reason,
            context_length=context_cells(files.header, model.device.fixed_seq_len),
            context_reason=context.reason,
            is_fitted=context.is_shortened or self._config_of(name).device.max_seq_len == "auto",
            is_shortened=context.is_shortened,
            size_bytes=files.size_bytes,
            memory_bytes=placed.total_bytes,
            pool_bytes=taken_bytes([placed]),
            placement=planned_text(placed, files.header),
            tokens_per_s=_tokens_per_s(self._specs[name], files, placed),
            is_resident=is_resident,
            warnings=files.warnings,
        )


def _tokens_per_s(spec: ModelSpec, files: ModelFiles, placed: Footprint) -> float | None:
    """Return the estimated speed of a stream; None for what makes none, and where the header lacks tensors."""
    token_s = placed.token_s
    if not token_s and files.kind not in POOLED_KINDS and files.parameter_count is not None:
        runtime, running = spec.config.runtime, running_at_once(spec.config, spec.model)
        flash_attn = flash_attention(spec.config, spec.model, files)
        context = ContextSettings(
            context_length=spec.model.device.fixed_seq_len,
            running=running,
            sequences=running + runtime.prefix_cache_n,
            batch_tokens=micro_batch(runtime.batch_tokens, flash_attn, has_projector=bool(files.projector_bytes)),
            kv_type=runtime.kv_type,
            flash_attn=flash_attn,
            parks=runtime.prefix_cache_n > 0,
        )
        token_s = token_seconds(text_model(files.header, context), ON_HOST, {})
    return round(1 / token_s, 1) if token_s else None
