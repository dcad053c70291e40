"""Loads models when a yard starts: as many as the memory budget holds together."""

from __future__ import annotations

import asyncio
import logging

from modelyard.system.quantities import size_text
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.choice import plan_load
from modelyard.yard.residency.events import Sized
from modelyard.yard.residency.eviction import Fit
from modelyard.yard.runtime.controller import LifecycleController

logger = logging.getLogger(__name__)


def load_what_fits(controller: LifecycleController, footprints: dict[str, Footprint]) -> list[asyncio.Future[None]]:
    """Load models in their order while there is memory for them; each future is done when its model serves."""
    loads = []
    for name, footprint in footprints.items():
        controller.feed(Sized(name, footprint))
        if plan_load(controller.state, name).fit is Fit.FITS:
            loads.append(controller.reload(name))
        else:
            logger.warning(
                "%s needs %s, which the memory budget does not have beside the models before it: "
                "it is loaded when it is first asked for",
                name,
                size_text(footprint.total_bytes),
            )
    return loads
