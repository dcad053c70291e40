"""The values that hold where several keys decide: the model's own, the common one, or what follows from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelyard.config.model import Model
    from modelyard.config.names import Isolation
    from modelyard.config.schema import Config


def effective_cpu(models: Iterable[Model]) -> bool:
    """Return the ``cpu`` that holds for all models: the value of those that set it, false where none does."""
    return any(model.device.cpu for model in models)


def running_at_once(config: Config, model: Model) -> int:
    """Return how many requests ``model`` computes at the same time."""
    return model.device.max_batch_size or config.runtime.max_seqs


def isolation_of(config: Config, model: Model) -> Isolation:
    """Return where the engine of ``model`` runs: the model's own setting, else that of ``[runtime]``."""
    return model.isolation or config.runtime.isolation


def default_model(config: Config) -> str | None:
    """Return the listed id of the model for requests that name none.

    It is the one that ``default_model_id`` names, else the only model; None where there are several and none is named.
    """
    if config.default_model_id is not None:
        return next((model.id for model in config.models if config.default_model_id in model.names), None)
    return config.models[0].id if len(config.models) == 1 else None
