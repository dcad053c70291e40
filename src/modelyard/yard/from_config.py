"""Settings of the residency and the router that follow from a configuration."""

from __future__ import annotations

import math

from modelyard.config import Config, Model, default_model, read_token, running_at_once
from modelyard.hub import Hub, Stores
from modelyard.system.memory import budget_bytes, total_bytes
from modelyard.yard.requests.model_names import ModelId
from modelyard.yard.requests.router import Router
from modelyard.yard.residency.policy import ModelPolicy

# Requests that may wait behind those that run, for each model.
WAITING_ROOM = 512


def stores_of(config: Config, *, is_offline: bool = False) -> Stores:
    """Return where the models' files come from, and where converted ones go.

    Args:
        config: has the source of the hub's token.
        is_offline: whether the hub is not asked, so that only its cache is used.

    Raises:
        ConfigError: the hub's token is not where the configuration says.
    """
    token = None if is_offline else read_token(config.hub.token_source.get_secret_value())
    return Stores(Hub(token=token, is_offline=is_offline))


def memory_budget(config: Config, available: int) -> int:
    """Return the bytes that the models may take together; ``available`` bytes were free before any was loaded."""
    return budget_bytes(config.memory.budget, available, total_bytes())


def model_policy(config: Config, model: Model) -> ModelPolicy:
    """Return how the residency treats a model."""
    idle_s = model.idle_unload_seconds
    return ModelPolicy(
        name=ModelId(model.id),
        max_requests=running_at_once(config, model) + WAITING_ROOM,
        # A model of other servers takes no memory, so that unloading it frees none.
        is_pinned=model.pinned or model.is_remote,
        priority=model.priority,
        idle_unload_s=math.inf if idle_s is None else idle_s,
        max_running=running_at_once(config, model),
    )


def router(config: Config) -> Router:
    """Return the router from the names of the models to their ids."""
    adapters = {model.id: model.adapters for model in config.models if model.adapters}
    return Router({model.id: model.names for model in config.models}, default_model(config), adapters)
