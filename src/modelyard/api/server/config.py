"""The server's configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from modelyard.api.middleware.authorization import needs
from modelyard.config import Config
from modelyard.config.reader import ConfigReader
from modelyard.errors import InvalidRequest
from modelyard.yard.reconfigure import Reconfiguration
from modelyard.yard.yard import Yard


def reconfiguration_object(done: Reconfiguration, *, applied: bool) -> dict[str, Any]:
    """What a new configuration changed, or would change."""
    changes = done.diff
    return {
        "applied": applied,
        "added": list(changes.added),
        "removed": list(changes.removed),
        "changed": {
            model: {"keys": list(keys), "how": done.replaced[model], "error": done.failed.get(model)}
            for model, keys in changes.changed.items()
        },
        "retuned": list(changes.retuned),
        "memory": list(changes.memory),
        "needs_restart": list(changes.server),
    }


def admin_routes(yard: Yard, read_config: Callable[[], Config] | None) -> APIRouter:
    """The configuration of the server on ``yard``; ``read_config`` reads its file, where it has one."""
    router = APIRouter()
    reader = None if read_config is None else ConfigReader(read_config)

    @router.post("/v1/config/reload")
    @needs("admin", all_models=True)
    async def reload_config(dry_run: bool = False) -> dict[str, Any]:
        """Read the configuration file again and serve it. Models that did not change keep running."""
        if reader is None:
            raise InvalidRequest("The server was started without a configuration file, so there is none to read again.")
        done = await yard.reconfigure(await reader.read_async(), dry_run=dry_run)
        return reconfiguration_object(done, applied=not dry_run)

    return router
