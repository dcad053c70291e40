"""Loads models when a yard starts: as many as the memory budget holds together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from modelyard.system.quantities import size_text
from modelyard.yard.memory.footprint import Choices
from modelyard.yard.residency.allocation import insufficient_memory
from modelyard.yard.residency.choice import plan_load
from modelyard.yard.residency.events import Sized
from modelyard.yard.residency.eviction import Fit
from modelyard.yard.residency.state import Residency
from modelyard.yard.runtime.controller import LifecycleController

logger = logging.getLogger(__name__)


def refuse_unfit(state: Residency, footprints: Mapping[str, Choices]) -> None:
    """Refuse models that do not fit the budgets in any placement, even with nothing else loaded.

    Args:
        state: in which nothing is loaded.
        footprints: of models in it.

    Raises:
        InsufficientMemory: of the first such model.
    """
    for name, choices in footprints.items():
        model = state.models[name]._replace(footprint=choices[0], choices=choices)
        sized = state._replace(models={**state.models, name: model})
        if (plan := plan_load(sized, name)).fit is Fit.NEVER:
            raise insufficient_memory(sized, name, plan)


def load_what_fits(controller: LifecycleController, footprints: Mapping[str, Choices]) -> list[asyncio.Future[None]]:
    """Load models in their order while there is memory for them; each future is done when its model serves."""
    loads = []
    for name, choices in footprints.items():
        controller.feed(Sized(name, choices[0], choices[1:]))
        if plan_load(controller.state, name).fit is Fit.FITS:
            loads.append(controller.reload(name))
        else:
            logger.warning(
                "%s needs %s, which the memory budget does not have beside the models before it: "
                "it is loaded when it is first asked for",
                name,
                size_text(choices[0].total_bytes),
            )
    return loads
