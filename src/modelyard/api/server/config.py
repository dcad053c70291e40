"""POST /v1/config/reload."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from modelyard.api.middleware.authorization import needs
from modelyard.api.services import Services
from modelyard.config.reader import ConfigReader
from modelyard.errors import ConfigError, InvalidRequest, ModelyardError
from modelyard.yard.reconfigure import Reconfiguration


def reconfiguration_object(result: Reconfiguration, *, applied: bool) -> dict[str, Any]:
    """Return what a new configuration has changed, or would change."""
    changes = result.diff
    return {
        "applied": applied,
        "added": list(changes.added),
        "removed": list(changes.removed),
        "changed": {
            model: {"keys": list(keys), "how": result.replaced[model], "error": result.failed.get(model)}
            for model, keys in changes.changed.items()
        },
        "retuned": list(changes.retuned),
        "memory": list(changes.memory),
        "mcp": list(changes.mcp),
        "needs_restart": list(changes.server),
    }


logger = logging.getLogger(__name__)

router = APIRouter()


@router.post("/v1/config/reload")
@needs("admin", all_models=True)
async def reload_config(http: HttpRequest, dry_run: bool = False) -> dict[str, Any]:
    """Read the configuration file again and apply it. Models that did not change keep running."""
    reader: ConfigReader | None = http.app.state.config_reader
    if reader is None:
        raise InvalidRequest("The server was started without a configuration file, so there is none to read again.")
    try:
        result = await Services.of(http).yard.reconfigure(await reader.read_async(), dry_run=dry_run)
    except ModelyardError as error:
        if not dry_run:
            reason = error.in_one_line if isinstance(error, ConfigError) else error
            logger.error("The configuration was not reloaded, nothing has changed. %s", reason)
        raise
    if not dry_run:
        logger.info("The configuration was reloaded: %s", result.summary())
    return reconfiguration_object(result, applied=not dry_run)
