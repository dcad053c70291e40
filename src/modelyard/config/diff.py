"""The difference between two configurations, by what has to be done to apply it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.config.effective import effective_cpu, isolation_of
from modelyard.config.model import Model
from modelyard.config.schema import Config

# Keys of a model that do not affect its engine.
_WITHOUT_ENGINE = frozenset(
    {
        *("alias", "aliases", "load", "pinned", "idle_unload_seconds", "priority", "weight", "model_id", "mcp"),
        *("remote", "system", "adapters"),
    }
)

# Keys of [memory] that the yard applies, and no engine.
_BUDGETS = frozenset({"budget", "devices"})

# A key of [runtime] that does not affect engines: the servers of that file are in [mcp].
_OF_MCP = "mcp_config"

# Keys of [server] that each request reads.
_READ_BY_REQUESTS = frozenset({"max_tool_rounds"})


@dataclass(frozen=True, slots=True)
class ConfigDiff:
    """The changes from one configuration to another. Models are named by their ids.

    Attributes:
        added, removed: models that are new, or gone.
        changed: models that need a new engine -> the keys that differ.
        retuned: models that keep their engine, although keys differ -> these keys.
        memory: keys of ``[memory]`` that differ.
        mcp: names of MCP servers that differ, and other keys of ``[mcp]``.
        server: keys that differ from those that the process was started with, and take effect when it is started again.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]
    retuned: Mapping[str, tuple[str, ...]]
    memory: tuple[str, ...]
    server: tuple[str, ...]
    mcp: tuple[str, ...] = ()


def diff(old: Config, new: Config, started: Config | None = None) -> ConfigDiff:
    """Return the changes from ``old`` to ``new``, and what is new to a process that was started with ``started``.

    Args:
        old: in force.
        new: the one that follows.
        started: the first; None: ``old``.
    """
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
        retuned={
            model: _differing(dict(before[model]), dict(after[model]))
            for model in both
            if model not in changed and before[model] != after[model]
        },
        memory=_differing(old.memory.model_dump(), new.memory.model_dump()),
        server=_differing(_process_keys(started or old), _process_keys(new)),
        mcp=_differing(_mcp_keys(old), _mcp_keys(new)),
    )


def _engine_keys(config: Config, model: Model) -> dict[str, Any]:
    """Return everything that a model's engine depends on."""
    # The effective values: a model with a setting of its own does not change with the common one.
    effective = {"cpu": effective_cpu(config.models), "isolation": isolation_of(config, model)}
    keys = {key: value for key, value in dict(model).items() if key not in _WITHOUT_ENGINE | effective.keys()}
    runtime = {
        f"runtime.{key}": value for key, value in dict(config.runtime).items() if key not in (*effective, _OF_MCP)
    }
    kept = {f"memory.{key}": value for key, value in dict(config.memory).items() if key not in _BUDGETS}
    return {"model_id": model.source, "remote": model.remote, **effective, **keys, **runtime, **kept}


def _process_keys(config: Config) -> dict[str, Any]:
    # Through an iterator, because dict() takes an object with an attribute ``keys`` for a mapping.
    server = {key: value for key, value in iter(config.server) if key not in _READ_BY_REQUESTS}
    return {**server, **dict(config.hub), "command": config.command, "mcp.serve": config.mcp.serve}


def _mcp_keys(config: Config) -> dict[str, Any]:
    keys = {key: value for key, value in dict(config.mcp).items() if key not in ("servers", "serve")}
    return {**keys, **{f"servers.{server.name}": server for server in config.mcp.servers}}


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(key for key in {**old, **new} if old.get(key) != new.get(key))
