"""Preparations, unloads, reloads and other priorities that a caller asks for."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from modelyard.errors import ModelLoadFailed, ModelyardError, NotWithRemote, QueueFull, UnusableModel
from modelyard.yard.directory import ModelDirectory
from modelyard.yard.from_config import model_policy
from modelyard.yard.residency.events import ModelRetuned
from modelyard.yard.residency.waiting import UnloadMode, WaitKind
from modelyard.yard.runtime.controller import LifecycleController
from modelyard.yard.runtime.engine_factory import EngineFactory
from modelyard.yard.runtime.model_spec import ModelSpec
from modelyard.yard.runtime.nodes import Nodes

MAX_WAITING_LOADS: Final = 512
"""Calls that wait for one model to be loaded, beside the requests for it."""


class ModelOperations:
    """Prepares, unloads, reloads and retunes models for the current caller. Use it on the yard's event loop."""

    def __init__(self, directory: ModelDirectory, factory: EngineFactory, controller: LifecycleController) -> None:
        self._directory = directory
        self._factory = factory
        self._controller = controller

    async def unload(self, name: str, mode: UnloadMode, node: str | None = None) -> None:
        """Free a model; see ``Yard.unload``."""
        model = self._directory.router.route(name)
        if (nodes := self._nodes_of(model, node)) is not None:
            await self._done(nodes.unload(model, mode, node))
            return
        if self._directory.is_remote(model):
            raise NotWithRemote(model, "unloaded")
        await self._done(self._controller.unload(self._directory.residency_names[model], mode))

    async def reload(self, name: str, node: str | None = None) -> None:
        """Load a model; see ``Yard.reload``."""
        model = self._directory.router.route(name)
        if (nodes := self._nodes_of(model, node)) is not None:
            await self._done(nodes.reload(model, node))
            return
        residency_name = self._directory.residency_names[model]
        queue = self._controller.state.models[residency_name].queue
        if (waiting := sum(waiter.kind is WaitKind.LOAD for waiter in queue)) >= MAX_WAITING_LOADS:
            raise QueueFull(model, waiting)
        await self._done(self._controller.reload(residency_name))

    async def prepare(self, name: str, node: str | None = None) -> None:
        """Download and convert the files of a model; see ``Yard.prepare``."""
        model = self._directory.router.route(name)
        if (nodes := self._nodes_of(model, node)) is not None:
            await self._done(nodes.prepare(model, node))
            return
        residency_name = self._directory.residency_names[model]
        try:
            await self._factory.prepare(residency_name)
        except UnusableModel as unusable:
            raise self._directory.caller().visible_error(ModelLoadFailed(model, str(unusable))) from unusable
        finally:
            self._controller.prepared(residency_name)

    def retune(self, name: str, pinned: bool | None, priority: int | None) -> None:
        """Change how a model is treated; see ``Yard.retune``."""
        configured = self._directory.configured(name)
        if pinned is not None and configured.is_remote:
            raise NotWithRemote(configured.id, "pinned or unpinned")
        residency_name = self._directory.residency_names[configured.id]
        policy = self._controller.state.models[residency_name].policy
        tuned = configured.model_copy(
            update={
                "pinned": policy.is_pinned if pinned is None else pinned,
                "priority": policy.priority if priority is None else priority,
            }
        )
        spec = ModelSpec(self._directory.config, tuned)
        self._factory.specs[residency_name] = self._factory.fitter.retuned(residency_name, spec)
        self._controller.feed(ModelRetuned(residency_name, model_policy(spec.config, tuned)))
        self._controller.set_share(residency_name, tuned.weight, tuned.priority)

    def _nodes_of(self, model: str, node: str | None) -> Nodes | None:
        return self._factory.remotes.nodes_of(self._directory.configured(model), node)

    async def _done(self, operation: Awaitable[None]) -> None:
        """Wait for an operation; what it fails with is raised as the caller may read it."""
        try:
            await operation
        except ModelyardError as error:
            raise self._directory.caller().visible_error(error) from None
