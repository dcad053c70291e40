"""What is different between two configurations, in terms of what has to be done about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.config.rules import effective_cpu, isolation_of
from modelyard.config.schema import Config, Model

# Keys of a model that its engine knows nothing of.
_LIGHT = frozenset({"alias", "aliases", "load", "pinned", "idle_unload_seconds", "priority", "weight", "model_id"})


@dataclass(frozen=True, slots=True)
class ConfigDiff:
    """The way from one configuration to another. Models are named by their ids.

    Attributes:
        added, removed: models.
        changed: models that need another engine -> the keys that differ.
        retuned: models of which only the treatment differs.
        memory: keys of ``[memory]`` that differ.
        server: keys that take effect only when the process is started again.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]
    retuned: tuple[str, ...]
    memory: tuple[str, ...]
    server: tuple[str, ...]


def diff(old: Config, new: Config) -> ConfigDiff:
    """What changes from ``old`` to ``new``."""
    before, after = ({model.id: model for model in config.models} for config in (old, new))
    both = [model for model in after if model in before]
    changed = {
        model: keys
        for model in both
        if (keys := _differing(_engine_keys(old, before[model]), _engine_keys(new, after[model])))
    }
    return ConfigDiff(
        added=tuple(model for model in after if model not in before),
        removed=tuple(model for model in before if model not in after),
        changed=changed,
        retuned=tuple(model for model in both if model not in changed and before[model] != after[model]),
        memory=_differing(old.memory.model_dump(), new.memory.model_dump()),
        server=_differing(_of_process(old), _of_process(new)),
    )


def _engine_keys(config: Config, model: Model) -> dict[str, Any]:
    """Everything that a model's engine depends on."""
    # In effect: a model with a setting of its own is as it was when the one for all changes.
    effective = {"cpu": effective_cpu(config.models), "isolation": isolation_of(config, model)}
    keys = {key: value for key, value in dict(model).items() if key not in _LIGHT | effective.keys()}
    runtime = {f"runtime.{key}": value for key, value in dict(config.runtime).items() if key not in effective}
    kept = {f"memory.{key}": value for key, value in dict(config.memory).items() if key != "budget"}
    return {"model_id": model.source, **effective, **keys, **runtime, **kept}


def _of_process(config: Config) -> dict[str, Any]:
    # Not a mapping of itself: it has an attribute that is called keys.
    server = dict(iter(config.server))
    return {**server, **dict(config.hub), "command": config.command}


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(key for key in {**old, **new} if old.get(key) != new.get(key))
