"""From a configuration to what an engine and its trial are told: the way that a server goes, without the server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelyard.config import validate_config
from modelyard.engine.hosts.trial_task import TrialTask, trial_of
from modelyard.engine.settings import EngineSettings
from modelyard.errors import UnusableModel
from modelyard.formats.gguf.read import read_header
from modelyard.protocol.events import Publish
from modelyard.yard.memory.layer_shapes import vocabulary_size
from modelyard.yard.runtime.engine_factory import EngineFactory
from modelyard.yard.runtime.interfaces import EngineHandle
from modelyard.yard.runtime.model_spec import ModelSpec

BUDGET_BYTES: Final = 1 << 30
_NAME: Final = "fuzzed"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that may be tried, and then served."""

    settings: EngineSettings
    trial: TrialTask


class _Captured(Exception):
    """Carries the settings out of the factory, which makes an engine of them."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings


def prepare(mapping: Mapping[str, Any]) -> Prepared:
    """What the one model of a configuration is tried and served with.

    Raises:
        ConfigError: the configuration is refused.
        UnusableModel: its file is, or it takes more than ``BUDGET_BYTES``.
    """
    config = validate_config(mapping)
    factory = EngineFactory(_capture)
    factory.memory.budget_bytes = BUDGET_BYTES
    factory.specs[_NAME] = ModelSpec(config, config.models[0])
    return asyncio.run(_prepare(factory))


async def _prepare(factory: EngineFactory) -> Prepared:
    (footprint,) = (await factory.check([_NAME]))[_NAME]
    if footprint.total_bytes > BUDGET_BYTES:
        raise UnusableModel(f"It takes {footprint.total_bytes} bytes.")
    try:
        await factory.make(_NAME, lambda _: None, footprint.placement)
        raise AssertionError("the factory made no engine")
    except _Captured as captured:
        settings = captured.settings
    header = await asyncio.to_thread(read_header, settings.paths[0])
    return Prepared(
        settings,
        trial_of(
            settings,
            file_bytes=header.file_size,
            trained_context=header.context_length,
            vocabulary_size=vocabulary_size(header),
            cores=1,
        ),
    )


def _capture(settings: EngineSettings, _: Publish) -> EngineHandle:
    raise _Captured(settings)
