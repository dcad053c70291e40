"""Whether models serve, why they do not, and what requests wait for."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.yard.directory import ModelDirectory
from modelyard.yard.requests.model_names import ResidencyName
from modelyard.yard.residency.state import LoadState
from modelyard.yard.runtime.controller import LifecycleController
from modelyard.yard.runtime.engine_factory import EngineFactory
from modelyard.yard.stats.status import stage


class Health:
    """Answers whether models serve, and changes nothing. Use it on the yard's event loop.

    Args:
        directory, factory, controller: of the yard.
    """

    def __init__(self, directory: ModelDirectory, factory: EngineFactory, controller: LifecycleController) -> None:
        self._directory = directory
        self._factory = factory
        self._controller = controller

    def failed(self) -> dict[str, str]:
        """Return the models, of those the caller may use, that failed and were not loaded since, with the reason."""
        caller = self._directory.caller()
        return {name: caller.visible_reason(why) for name, why in self._failures() if caller.may_use(name)}

    @property
    def is_sound(self) -> bool:
        """Whether no engine and no load has failed, independent of the caller."""
        return not any(self._failures())

    def is_ready(self, name: str) -> bool:
        """Whether a model of that name exists and would begin a request at once, independent of the caller."""
        model = self._directory.router.resolve(name)
        return model is not None and not self._unready(model)

    def unready(self, name: str) -> str:
        """Return why a model, by id or alias, would not begin a request at once; "" where it would. Changes nothing.

        Raises:
            ModelNotFound: no model has that name.
        """
        return self._directory.caller().visible_reason(self._unready(self._directory.router.route(name)))

    def stage(self, model: str) -> str:
        """Return what requests for ``model``, by id, wait for at the moment; "" where it serves."""
        residency_name = self._directory.residency_names.get(model, ResidencyName(model))
        if residency_name not in self._controller.state.models:
            return ""
        if (preparing := self._factory.files.progress.get(residency_name)) is not None:
            return f"{preparing.step} {preparing.fraction:.0%}"
        return stage(self._controller.state, residency_name, self._controller.load_progress.get(residency_name, 0.0))

    def _failures(self) -> Iterator[tuple[str, str]]:
        for model in self._directory.config.models:
            failure = self._controller.state.models[self._directory.residency_names[model.id]].failure
            if failure is not None:
                yield model.id, failure

    def _unready(self, model: str) -> str:
        state = self._controller.state.models[self._directory.residency_names[model]]
        if state.failure is not None:
            return state.failure
        if problem := self._factory.remotes.unreachable(self._directory.residency_names[model]):
            return problem
        if state.load_state in (LoadState.UNLOADED, LoadState.PARKED) and state.first is None:
            return "not loaded"
        return "unloading" if state.has_unload_next else self.stage(model)
