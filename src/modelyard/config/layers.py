"""Puts models that the configuration file does not name beside those that it names. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.config.effective import default_model

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from modelyard.config.model import Model
    from modelyard.config.names import Origin
    from modelyard.config.schema import Config


def without_models(config: Config, origin: Origin) -> Config:
    """Return the configuration without its models of that origin."""
    return config.model_copy(update={"models": tuple(model for model in config.models if model.origin != origin)})


def with_models(config: Config, models: Sequence[Model]) -> Config:
    """Return the configuration with further models behind its own, which keep their names and the default.

    Args:
        config: the configuration.
        models: the others; each has an alias. One with a name of another model before it is left out, but for a
            common ``model_id``: the same weights may be served in several ways.
    """
    taken = {name for model in config.models for name in model.names}
    kept: list[Model] = []
    for model in models:
        if taken.isdisjoint((model.id, *model.aliases)):
            taken.update(model.names)
            kept.append(model)
    # A single configured model is the default without being named, which further ones must not change.
    default = default_model(config) or config.default_model_id
    return config.model_copy(update={"models": (*config.models, *kept), "default_model_id": default})


def free_name(candidates: Sequence[str], taken: Collection[str]) -> str:
    """Return the first of the candidates that is not taken, else the first one with a number: ``name-2``."""
    for name in candidates:
        if name not in taken:
            return name
    number = 2
    while (name := f"{candidates[0]}-{number}") in taken:
        number += 1
    return name
