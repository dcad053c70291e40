"""Looks at the files of all models of a configuration, and predicts their memory, without loading any of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from modelyard.config import Config, Model
from modelyard.errors import RepositoryUnavailable, UnusableModel
from modelyard.hub import FilePlan, ModelFiles, Stores, estimate_files
from modelyard.system.memory import available_bytes
from modelyard.yard.from_config import memory_budget, stores_of
from modelyard.yard.memory.cache_bytes import context_cells
from modelyard.yard.runtime.model_spec import footprint_of, plan_of


@dataclass(frozen=True, slots=True)
class InspectedModel:
    """What the files of a model say.

    Attributes:
        id: the model's id.
        model_id: the model as the configuration names it.
        load: when it is loaded, as configured.
        kind: what it does, such as "text"; "" where that is not known.
        quantization: the type of its weights; "" where that is not known.
        context_length: tokens that its context holds; None where that is not known.
        size_bytes: of its weights on disk; None where that is not known.
        memory_bytes: predicted memory of the loaded model; None where that is not known.
        problem: why it cannot be served, as a sentence; "" where it can.
        unchecked: why its files were not looked at, as a sentence; "" where they were.
        warnings: what it cannot do here although its makers promise it.
    """

    id: str
    model_id: str
    load: str
    kind: str = ""
    quantization: str = ""
    context_length: int | None = None
    size_bytes: int | None = None
    memory_bytes: int | None = None
    problem: str = ""
    unchecked: str = ""
    warnings: tuple[str, ...] = ()

    def as_facts(self) -> dict[str, Any]:
        """Return it as a mapping that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the files of all models say, and the memory that the models may take together."""

    models: tuple[InspectedModel, ...]
    budget_bytes: int

    @property
    def oversized(self) -> tuple[InspectedModel, ...]:
        """The models that do not fit the budget even alone."""
        return tuple(model for model in self.models if (model.memory_bytes or 0) > self.budget_bytes)

    @property
    def startup_bytes(self) -> int:
        """Predicted memory of the models that are loaded at the start, as far as it is known."""
        return sum(model.memory_bytes or 0 for model in self.models if model.load == "startup")


def inspect_models(config: Config, *, is_offline: bool = True) -> Inspection:
    """Return what the files of the models say, by their headers.

    Args:
        config: the configuration.
        is_offline: whether the hub is not asked: of its models only those in the cache are looked at.

    Raises:
        ConfigError: the hub is asked, and its token is not where the configuration says.
    """
    stores, budget = stores_of(config, is_offline=is_offline), memory_budget(config, available_bytes())
    return Inspection(tuple(_inspect(config, model, stores, budget) for model in config.models), budget)


def _inspect(config: Config, model: Model, stores: Stores, budget: int) -> InspectedModel:
    known = InspectedModel(model.id, model.model_id, model.load)
    try:
        files = _files(config, model, stores, budget)
        draft = next((each for each in config.models if model.draft in each.names), None)
        draft_files = None if draft is None else _files(config, draft, stores, budget)
        memory = footprint_of(config, model, files, draft_files)
    except RepositoryUnavailable as unavailable:
        return _failed(known, unavailable, is_unchecked=unavailable.why in ("offline", "unreachable"))
    except UnusableModel as unusable:
        return _failed(known, unusable, is_unchecked=False)
    return replace(
        known,
        kind=files.kind,
        quantization=files.quantization,
        context_length=context_cells(files.header, model.device.fixed_seq_len),
        size_bytes=files.size_bytes,
        memory_bytes=memory.total_bytes,
        warnings=files.warnings,
    )


def _failed(known: InspectedModel, error: UnusableModel, *, is_unchecked: bool) -> InspectedModel:
    return replace(known, unchecked=str(error)) if is_unchecked else replace(known, problem=str(error))


def _files(config: Config, model: Model, stores: Stores, budget: int) -> ModelFiles:
    def fits(plan: FilePlan) -> bool:
        return footprint_of(config, model, estimate_files(plan, stores)).total_bytes <= budget

    return estimate_files(plan_of(config, model, stores, fits), stores)
