"""The status of all models, with what the current caller may see of it."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from modelyard.config import Model
from modelyard.errors import ModelLoadFailed, ModelyardError, UnusableModel
from modelyard.hub import Progress
from modelyard.protocol.model_info import ModelProfile
from modelyard.yard.directory import ModelDirectory
from modelyard.yard.requests.model_names import ResidencyName
from modelyard.yard.residency.state import LoadState
from modelyard.yard.runtime.controller import LifecycleController
from modelyard.yard.runtime.engine_factory import EngineFactory
from modelyard.yard.stats.cluster_status import status_on_nodes
from modelyard.yard.stats.device_memory import device_bytes
from modelyard.yard.stats.placement_text import placement_of_model
from modelyard.yard.stats.status import (
    STATUS,
    AdapterStatus,
    ModelStatus,
    Plan,
    context_allocated,
    leaves_in_s,
    memory_of,
    plan,
)
from modelyard.yard.survey import FileSurvey


class ModelListing:
    """Answers what state the models are in, and changes nothing. Use it on the yard's event loop.

    Args:
        directory, factory, controller, survey: of the yard.
    """

    def __init__(
        self,
        directory: ModelDirectory,
        factory: EngineFactory,
        controller: LifecycleController,
        survey: FileSurvey,
    ) -> None:
        self._directory = directory
        self._factory = factory
        self._controller = controller
        self._survey = survey
        # In seconds of the epoch: when the models became available.
        self._created = int(time.time())

    def models(self) -> list[ModelStatus]:
        """Return the status of all models that the caller may use; see ``Yard.models``."""
        caller = self._directory.caller()
        return [self._status(model) for model in self._directory.config.models if caller.may_use(model.id)]

    def model(self, name: str, node: str | None = None) -> ModelStatus:
        """Return the status of one model; see ``Yard.model``."""
        return self._status(self._directory.configured(name), node)

    def profile(self, name: str) -> ModelProfile | None:
        """Return what is known of one model since it was loaded; see ``Yard.profile``."""
        return self._controller.profiles.get(self._directory.residency_names[self._directory.configured(name).id])

    async def plan(self, name: str, node: str | None = None) -> Plan:
        """Return what a load of a model would do now; see ``Yard.plan``."""
        model = self._directory.router.route(name)
        if (nodes := self._factory.remotes.nodes_of(self._directory.configured(model), node)) is not None:
            try:
                found = await nodes.plan(model, node)
            except ModelyardError as error:
                raise self._directory.caller().visible_error(error) from None
            return found.visible_to(self._directory.caller())
        residency_name = self._directory.residency_names[model]
        state = self._controller.state
        if state.models[residency_name].footprint is None:
            try:
                choices = await self._factory.estimate(residency_name)
            except UnusableModel as unusable:
                failed = ModelLoadFailed(model, str(unusable))
                raise self._directory.caller().visible_error(failed) from unusable
            state = self._controller.state
            models = {
                **state.models,
                residency_name: state.models[residency_name]._replace(footprint=choices[0], choices=choices),
            }
            state = state._replace(models=models)
        planned = plan(state._replace(now=time.monotonic()), residency_name, self._layer_count(residency_name))
        return planned.visible_to(self._directory.caller())

    def _status(self, model: Model, node: str | None = None) -> ModelStatus:
        """Return the status of a model, on all nodes or on one where it is on a cluster."""
        status = self._status_here(model)
        nodes = self._factory.remotes.nodes_of(model, node)
        if nodes is None:
            return status
        spread = status_on_nodes(status, nodes.of_model(model.id, node), nodes.facts(model.id))
        reason = None if spread.reason is None else self._directory.caller().visible_reason(spread.reason)
        return replace(spread, reason=reason)

    def _status_here(self, model: Model) -> ModelStatus:
        residency_name = self._directory.residency_names[model.id]
        controller, caller = self._controller, self._directory.caller()
        state, profile = controller.state.models[residency_name], controller.profiles.get(residency_name)
        modalities = self._factory.known.modalities(residency_name)
        facts, memory = self._factory.known.facts(residency_name), memory_of(controller.state, residency_name)
        estimate = self._survey.estimates.get(residency_name)
        predicted_bytes = None if model.is_remote else memory.predicted_bytes
        if predicted_bytes is None and estimate is not None:
            predicted_bytes = estimate.total_bytes
        is_remote = model.is_remote
        known = None if is_remote else profile or facts
        return ModelStatus(
            id=model.id,
            aliases=tuple(alias for alias in model.names if alias != model.id),
            kind=self._factory.known.kind(residency_name),
            status=STATUS[state.load_state],
            is_default=model.id == self._directory.router.default,
            created=self._created,
            context_length=known.context_length if known else None,
            context_reason=self._factory.fitter.reason(residency_name),
            context_allocated=context_allocated(state),
            quantization=known.quantization if known else None,
            size_bytes=known.size_bytes if known else None,
            can_chat=known.can_chat if known else None,
            architecture=known.architecture if known else None,
            dimensions=(profile.dimensions or None) if profile else None,
            can_see=profile.can_see
            if profile and not is_remote
            else None
            if modalities is None
            else modalities.has_vision,
            can_hear=profile.can_hear
            if profile and not is_remote
            else None
            if modalities is None
            else modalities.has_audio,
            can_reason=profile.can_reason if profile and not is_remote else None,
            can_fill=profile.can_fill if profile and not is_remote else None,
            leaves_in_s=leaves_in_s(state, time.monotonic()),
            reason=None if state.failure is None else caller.visible_reason(state.failure),
            warnings=self._factory.known.warnings(residency_name),
            predicted_bytes=predicted_bytes,
            resident_bytes=memory.resident_bytes,
            shared_bytes=memory.shared_bytes,
            device_bytes=device_bytes(controller.state, residency_name, profile),
            placement=placement_of_model(controller.state, state, self._layer_count(residency_name)),
            is_pinned=state.policy.is_pinned and not is_remote,
            priority=state.policy.priority,
            is_retuned=(state.policy.is_pinned, state.policy.priority) != (model.pinned or is_remote, model.priority),
            is_parked=state.load_state is LoadState.PARKED,
            load_s=state.load_s,
            restarts=state.restarts,
            last_death=caller.visible_reason(state.last_death) if state.last_death else None,
            is_isolated=state.is_isolated,
            load_state=state.load_state,
            idle_s=max(0.0, time.monotonic() - state.last_used) if state.is_unused else None,
            unloads_after_s=None if state.idle_unload_s == math.inf or state.policy.is_pinned else state.idle_unload_s,
            files="here" if facts is not None else self._survey.states.get(residency_name),
            chat_template=profile.chat_template if profile else facts.chat_template if facts else "",
            parameter_count=facts.parameter_count if facts else None,
            sampling=facts.sampling if facts else None,
            license=facts.license if facts else "",
            addresses=self._factory.remotes.status(residency_name),
            is_remote=is_remote,
            adapters=self._adapters(model),
            progress=self._progress(residency_name, is_loading=STATUS[state.load_state] == "reloading"),
        )

    def _adapters(self, model: Model) -> tuple[AdapterStatus, ...]:
        files = self._factory.known.adapters(self._directory.residency_names[model.id]).files
        sizes = {file.name: file.size_bytes for file in files}
        applied = self._directory.applied_scales(model.id, model.adapters)
        return tuple(
            AdapterStatus(
                model.adapter_id(adapter),
                adapter.name,
                adapter.scale,
                applied.get(adapter.name, 0.0),
                adapter.path.name,
                adapter.alias,
                sizes.get(adapter.name),
            )
            for adapter in model.adapters
        )

    def _layer_count(self, residency_name: ResidencyName) -> int | None:
        facts = self._factory.known.facts(residency_name)
        return facts.layer_count if facts else None

    def _progress(self, residency_name: ResidencyName, *, is_loading: bool) -> Progress | None:
        """Return the progress of a load, or of files that are prepared without one, as by a pull."""
        fraction = self._controller.load_progress.get(residency_name) if is_loading else None
        loading = None if fraction is None else Progress("loading", fraction)
        return self._factory.files.progress.get(residency_name, loading)
