"""What a configuration means for the residency and the router."""

from __future__ import annotations

import math

from modelyard.config import Config, Model, default_model, read_token, running_at_once
from modelyard.hub import Hub, Stores
from modelyard.system.memory import budget_bytes, total_bytes
from modelyard.yard.requests.router import Router
from modelyard.yard.residency.state import ModelPolicy

# Requests that may wait behind those that run, for each model.
WAITING_ROOM = 512


def stores_of(config: Config) -> Stores:
    """Where the models' files come from, and where converted ones go.

    Raises:
        ConfigError: the hub's token is not where the configuration says.
    """
    return Stores(Hub(token=read_token(config.hub.token_source.get_secret_value())))


def memory_budget(config: Config, available: int) -> int:
    """Bytes that the models may take together, on a machine of which so many were ``available`` before they came."""
    return budget_bytes(config.memory.budget, available, total_bytes())


def traits(config: Config, model: Model) -> ModelPolicy:
    """How the residency is to treat a model."""
    idle_s = model.idle_unload_seconds
    return ModelPolicy(
        name=model.id,
        max_requests=running_at_once(config, model) + WAITING_ROOM,
        is_pinned=model.pinned,
        priority=model.priority,
        idle_unload_s=math.inf if idle_s is None else idle_s,
    )


def router(config: Config) -> Router:
    """Who is meant by which name."""
    return Router({model.id: model.names for model in config.models}, default_model(config))
