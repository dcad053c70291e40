"""What serving a model would take, found out without downloading, converting or loading anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from modelyard.config import Config
from modelyard.hub import FilePlan, estimate_files
from modelyard.hub.preparation.projector_plan import ProjectorPlan
from modelyard.hub.sources.converted import Entry
from modelyard.hub.sources.listing import ListedFile
from modelyard.system.memory import available_bytes
from modelyard.yard.from_config import memory_budget, stores_of
from modelyard.yard.runtime.engine_factory import footprint_of, plan_of


@dataclass(frozen=True, slots=True)
class Forecast:
    """The only model of a configuration, before anything is done for it.

    Attributes:
        source: what it was named by.
        origin: the folder or repository that its files come from.
        commit: of that repository; "" for a folder.
        reasons: what was considered, and what it is.
        files: that it is made of.
        quantization: type of its weights.
        conversion: what is done to the files on this machine; "" for nothing.
        projector: where the projector of a multimodal model comes from; "" where there is none.
        warnings: what the model cannot do here although its makers promise it.
        download_bytes: that are to be downloaded.
        weights_bytes, context_bytes: of memory that it takes.
        budget_bytes: of memory that there is for models.
    """

    source: str
    origin: str
    commit: str
    reasons: tuple[str, ...]
    files: tuple[ListedFile, ...]
    quantization: str
    conversion: str
    projector: str
    warnings: tuple[str, ...]
    download_bytes: int
    weights_bytes: int
    context_bytes: int
    budget_bytes: int

    def as_facts(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def foresee(config: Config) -> Forecast:
    """What the only model of ``config`` would take.

    Raises:
        UnusableModel: it cannot be had, or not be served.
    """
    (model,) = config.models
    stores = stores_of(config)
    budget = memory_budget(config, available_bytes())

    def fits(plan: FilePlan) -> bool:
        return footprint_of(config, model, estimate_files(plan, stores)).total_bytes <= budget

    plan = plan_of(config, model, stores, fits)
    # What the hub has is read over the network: once.
    sketched = estimate_files(plan, stores)
    predicted = footprint_of(config, model, sketched)
    listing = plan.decision.listing
    wanted = {*plan.decision.names, plan.projector.name}
    return Forecast(
        source=model.model_id,
        origin=str(listing.folder) if listing.hub_id is None else listing.hub_id.repo,
        commit=listing.commit,
        reasons=(*((listing.note,) if listing.note else ()), *plan.decision.reasons),
        files=tuple(file for file in listing.files if file.name in wanted),
        quantization=sketched.quantization,
        conversion=_conversion(plan.key, plan.made, plan.output_bytes),
        projector=_projector(plan.projector),
        warnings=sketched.warnings,
        download_bytes=plan.download_bytes,
        weights_bytes=predicted.weights_bytes,
        context_bytes=predicted.context_bytes,
        budget_bytes=budget,
    )


def _conversion(key: str, made: Entry | None, output_bytes: int) -> str:
    if made is not None:
        return f"done before: {made.path}"
    if not key:
        return ""
    return f"on this machine, into about {output_bytes / 1e6:,.0f} MB"


def _projector(plan: ProjectorPlan) -> str:
    if plan.conversion is None:
        return plan.name
    made = plan.conversion.made
    conversion = _conversion(plan.conversion.key, made, plan.conversion.output_bytes)
    return f"{plan.conversion.label}, made of the checkpoint: {conversion}"
