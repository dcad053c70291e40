"""The parts of a yard that need its lifecycle controller, which exists once the yard is started."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.yard.capability_checks import CapabilityChecks
from modelyard.yard.directory import ModelDirectory
from modelyard.yard.health import Health
from modelyard.yard.listing import ModelListing
from modelyard.yard.operations import ModelOperations
from modelyard.yard.reconfigure import Reconfigurer
from modelyard.yard.runtime.controller import LifecycleController
from modelyard.yard.runtime.engine_factory import EngineFactory
from modelyard.yard.submission import RequestSubmitter
from modelyard.yard.survey import FileSurvey


@dataclass(frozen=True, slots=True)
class YardParts:
    """Parts of a yard that is started; see the class of each."""

    controller: LifecycleController
    requests: RequestSubmitter
    listing: ModelListing
    checks: CapabilityChecks
    health: Health
    operations: ModelOperations
    reconfigurer: Reconfigurer


def make_parts(
    directory: ModelDirectory,
    factory: EngineFactory,
    controller: LifecycleController,
    survey: FileSurvey,
    reconfigurer: Reconfigurer,
) -> YardParts:
    """Return the parts of a yard around its controller."""
    listing = ModelListing(directory, factory, controller, survey)
    return YardParts(
        controller,
        RequestSubmitter(directory, controller),
        listing,
        CapabilityChecks(directory, factory, listing),
        Health(directory, factory, controller),
        ModelOperations(directory, factory, controller),
        reconfigurer,
    )
