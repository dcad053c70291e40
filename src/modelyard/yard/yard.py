"""All models of one process, as HTTP, the command line and Python programs use them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager

from modelyard.config import Config, Model
from modelyard.engine.hosts.device_list import may_have_accelerators
from modelyard.hub import Stores
from modelyard.protocol.model_info import ModelProfile
from modelyard.system.malloc import share_one_heap
from modelyard.system.memory import available_bytes
from modelyard.yard.capability_checks import CapabilityChecks
from modelyard.yard.devices import YardDevices
from modelyard.yard.directory import ModelDirectory
from modelyard.yard.from_config import memory_budget, model_policy, stores_of
from modelyard.yard.health import Health
from modelyard.yard.monitor import Monitor
from modelyard.yard.parts import YardParts, make_parts
from modelyard.yard.reconfigure import Reconfiguration, Reconfigurer
from modelyard.yard.requests.one_shot import Embeddings, Ranking, Tokenization
from modelyard.yard.requests.requests import EmbeddingRequest, RankRequest, Request, TokenizeRequest
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.residency.policy import WaitPolicy
from modelyard.yard.residency.state import Residency
from modelyard.yard.residency.waiting import UnloadMode
from modelyard.yard.runtime.controller import LifecycleController
from modelyard.yard.runtime.device_watch import DeviceWatch
from modelyard.yard.runtime.engine_factory import EngineFactory, MakeEngine
from modelyard.yard.runtime.isolation import Host
from modelyard.yard.runtime.model_spec import ModelSpec
from modelyard.yard.runtime.nodes import Nodes
from modelyard.yard.runtime.remote_models import RemoteModels
from modelyard.yard.runtime.startup import load_what_fits, refuse_unfit
from modelyard.yard.stats.status import ModelStatus, Plan
from modelyard.yard.submission import Rounds
from modelyard.yard.survey import FileSurvey


class Yard:
    """The models of a configuration. Use it on the event loop that it was started on.

    Args:
        config: which models there are, and how each is served.
        make_engine: makes an engine of settings; None: the real one. Tests script it.
        policy: the bounds of waiting.
        stores: where files come from; None: as the configuration says.
        auto_host: where engines run whose models have no record of deaths, unless the configuration says.
        devices: watches the memory of devices; None: of those of this machine, for real engines.
        remotes: makes the engines of models that other servers have; None: those that ask over HTTP.

    Attributes:
        directory: the names of the models, and the configuration in force.
        factory: sizes the models and makes their engines.
        monitor: what operators see.
        adapters_lock: held while the adapters of a model change, because a change is made of the adapters before it.
    """

    def __init__(
        self,
        config: Config,
        make_engine: MakeEngine | None = None,
        policy: WaitPolicy | None = None,
        stores: Stores | None = None,
        auto_host: Host = "thread",
        devices: DeviceWatch | None = None,
        remotes: RemoteModels | None = None,
    ) -> None:
        self.directory = ModelDirectory(config)
        self.factory = EngineFactory(make_engine, stores or stores_of(config), auto_host, remotes=remotes)
        # Scripted engines are on no device.
        watch = devices or (DeviceWatch() if make_engine is None and may_have_accelerators() else None)
        self._devices = YardDevices(watch, self.factory)
        self._policy = policy or WaitPolicy()
        self._survey = FileSurvey(self.directory, self.factory)
        self._started: YardParts | None = None
        self.monitor = Monitor(
            lambda: None if self._started is None else self._started.controller, self.factory, self._devices
        )
        self.adapters_lock = asyncio.Lock()

    async def start(self) -> None:
        """Load every model that is loaded at the start, side by side, as far as the memory budget goes.

        Raises:
            ConfigError: files of some of them are missing or unusable, or there is no such device; nothing was loaded.
            InsufficientMemory: one of them does not fit the budgets by itself; nothing was loaded.
            ModelLoadFailed: one could not be loaded; the others are freed again.
        """
        try:
            await self._start()
        except BaseException:
            await self._devices.close()
            raise

    async def _start(self) -> None:
        share_one_heap()
        self.factory.specs = {model.id: ModelSpec(self.config, model) for model in self.config.models}
        startup = [model.id for model in self.config.models if model.load == "startup"]
        machine_bytes = available_bytes()
        budget = self.factory.memory.budget_bytes = memory_budget(self.config, machine_bytes)
        await self._devices.list(self.config)
        device_budgets = self._devices.apply_budgets(self.config)
        footprints = await self.factory.check(startup)
        policies = {model.id: model_policy(self.config, model) for model in self.config.models}
        state = Residency.of(policies, budget, self._policy, device_budgets)
        refuse_unfit(state, footprints)
        controller = LifecycleController(state, self.factory, self.factory.discard, self._devices.refresh)
        controller.recorder.requests.keeps_texts = self.config.server.record_texts
        reconfigurer = Reconfigurer(self.directory, self.factory, controller, self._devices, machine_bytes)
        self._started = make_parts(self.directory, self.factory, controller, self._survey, reconfigurer)
        self.factory.files.on_progress = controller.preparing
        self._devices.follow(controller)
        outcomes = await asyncio.gather(*load_what_fits(controller, footprints), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                await self.close()
                raise outcome

    async def survey(self) -> dict[str, str]:
        """Read the headers of all models whose files were not read yet, as far as the files are on this machine.

        Returns:
            The ids of models that cannot be served as they are configured, with the reason.
        """
        return await self._survey.look_into_unread()

    async def close(self, timeout_s: float = 30.0) -> None:
        """End all requests, free every model, refuse what comes. What is not free in time is freed with the process."""
        # First, because nothing is decided by what they have any more, and a model may wait for a reading.
        await self._devices.close()
        if self._started is not None:
            await self._started.controller.close(timeout_s)
        self.factory.close()

    # Requests

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[TokenStream]:
        """Answer ``request``: the context is entered once the model is loaded and has accepted the prompt.

        Leaving the context early ends the sequence before the engine's next step.

        Raises:
            ModelNotFound, ModelRequired, ModelNotPermitted: there is no such model, or not for this caller.
            QueueFull: too many requests wait for it already.
            ModelLoading: it is not loaded, and the request does not wait so long.
            InsufficientMemory: it does not fit the memory budget.
            ModelLoadFailed: it is not loaded and cannot be.
            InvalidRequest: the prompt, or a setting, does not suit it.
            UnsupportedOperation: it is an embedding model.
        """
        await self.checks.check_task(request.model, "text")
        with self.submit(request) as generation:
            await generation.accepted()
            yield generation

    def submit(self, request: Request) -> AbstractContextManager[TokenStream]:
        """Answer ``request``, entering the context at once: the request may still wait for its model, or be refused.

        Leaving the context early ends the sequence before the engine's next step.

        Raises:
            ModelNotFound, ModelRequired: there is no such model.
        """
        return self._parts.requests.submit(request)

    def rounds(self, model: str | None) -> AbstractContextManager[Rounds]:
        """Return a context for requests that follow one another in one answer; between them the model stays in use.

        Args:
            model: id or alias; None means the default. All requests must be for it.

        Raises:
            ModelNotFound, ModelRequired, ModelNotPermitted: there is no such model, or not for this caller.
            RateLimited, ConcurrencyLimited: the caller has reached its limits.
        """
        return self._parts.requests.rounds(model)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Return the vectors of texts. Concurrent requests share batches; a cancelled one leaves at once.

        Raises:
            ModelNotFound, ModelRequired, QueueFull, ModelLoading, InsufficientMemory, ModelLoadFailed: as ``generate``.
            InvalidRequest: an input is empty, too long, or holds a token that the model does not know.
            UnsupportedOperation: it is no embedding model.
        """
        await self.checks.check_task(request.model, "embedding")
        with self._parts.requests.submit_one_shot(request.model, request.message, request.wait_options) as pending:
            return await pending.embedded()

    async def rank(self, request: RankRequest) -> Ranking:
        """Return how well documents answer a query. Shares batches as ``embed`` does.

        Raises:
            ModelNotFound, ModelRequired, QueueFull, ModelLoading, InsufficientMemory, ModelLoadFailed: as ``generate``.
            InvalidRequest: a document, with the query, is too long.
            UnsupportedOperation: it is no reranker.
        """
        await self.checks.check_task(request.model, "rerank")
        with self._parts.requests.submit_one_shot(request.model, request.message, request.wait_options) as pending:
            return await pending.ranked()

    async def tokenize(self, request: TokenizeRequest) -> Tokenization:
        """Return the tokens of a text or a conversation, by any model. Streams do not wait for it.

        Raises:
            ModelNotFound, ModelRequired, QueueFull, ModelLoading, InsufficientMemory, ModelLoadFailed: as ``generate``.
            InvalidRequest: it is too long, or the model's template refuses it.
            UnsupportedOperation: it is a chat, and the model has no template for one.
        """
        with self._parts.requests.tokenization(request) as pending:
            return await pending.tokenized()

    # Models and their status

    def models(self) -> list[ModelStatus]:
        """Return all models that the caller may use, in the order of the configuration."""
        return self._parts.listing.models()

    def model(self, name: str, node: str | None = None) -> ModelStatus:
        """Return one model, by id or alias.

        Args:
            name: id or alias.
            node: the node of a cluster whose part is returned; None: all of them together.

        Raises:
            ModelNotFound: no model has that name.
            NodeNotFound: no node of that name is connected.
        """
        return self._parts.listing.model(name, node)

    def profile(self, name: str) -> ModelProfile | None:
        """Return the properties of one model, by id or alias, that its engine reported; None until it was loaded once.

        Raises:
            ModelNotFound: no model has that name.
        """
        return self._parts.listing.profile(name)

    def configured(self, name: str | None) -> Model:
        """Return how a model is configured, by id or alias; None is the default.

        Raises:
            ModelNotFound, ModelRequired: there is no such model.
        """
        return self.directory.configured(name)

    async def plan(self, name: str, node: str | None = None) -> Plan:
        """Return what a load of a model would do now. Reads the headers of its files at most, and changes nothing.

        Args:
            name: id or alias.
            node: the node of a cluster that would load it; None: the one where the load costs least.

        Raises:
            ModelNotFound: no model has that name.
            NodeNotFound: no node of that name is connected.
            ModelLoadFailed: its files are missing or unusable.
        """
        return await self._parts.listing.plan(name, node)

    @property
    def closing(self) -> asyncio.Event:
        """Set once the yard closes."""
        return self.controller.closing

    # Operations

    @property
    def nodes(self) -> Nodes | None:
        """The nodes of the cluster whose front this is; None where it is no front."""
        return self.factory.remotes.nodes

    async def unload(self, name: str, mode: UnloadMode = UnloadMode.DRAIN, node: str | None = None) -> ModelStatus:
        """Free a model; a later request loads it again. Idempotent.

        ``mode`` decides what becomes of its running requests: the unload waits for them, or they are suspended until
        the model is loaded again, or they end with an error. Parking waits for them, and leaves the weights in memory.
        On a cluster ``node`` is the node where it is freed; None: every node.

        Raises:
            ModelNotFound: no model has that name.
            NodeNotFound: no node of that name is connected.
            ModelBusy: its requests did not end in time.
            NotWithRemote: another server has it.
        """
        await self._parts.operations.unload(name, mode, node)
        return self.model(name, node)

    async def reload(self, name: str, node: str | None = None) -> ModelStatus:
        """Load a model, at once even where its last load failed a moment ago. Idempotent.

        A model that another server has serves always, so nothing is done for it. On a cluster ``node`` is the node
        that loads it; None: the one where that costs least, unless a node has it.

        Raises:
            ModelNotFound: no model has that name.
            NodeNotFound: no node of that name is connected.
            ModelLoadFailed: it could not be loaded.
            InsufficientMemory: it does not fit the memory budget.
            ModelLoading: there was no memory for it in time.
            QueueFull: too many calls wait for its load already, including those whose clients have left.
        """
        await self._parts.operations.reload(name, node)
        return self.model(name, node)

    async def prepare(self, name: str, node: str | None = None) -> ModelStatus:
        """Download and convert the files of a model, as far as they are not on this machine, without loading it.

        Cancelling it ends a download or a conversion. On a cluster ``node`` is the node that does it; None: the one
        where a load costs least.

        Raises:
            ModelNotFound: no model has that name.
            NodeNotFound: no node of that name is connected.
            ModelLoadFailed: its files are missing or unusable, or cannot be downloaded or converted.
        """
        await self._parts.operations.prepare(name, node)
        return self.model(name, node)

    def retune(self, name: str, *, pinned: bool | None = None, priority: int | None = None) -> ModelStatus:
        """Change how a model is treated, until the configuration is read again or the server restarts.

        Requests that wait already keep their priority.

        Args:
            name: id or alias of the model.
            pinned: whether it is never unloaded to make room, nor when idle; None: as before.
            priority: of requests that name none; None: as before.

        Raises:
            ModelNotFound: no model has that name.
        """
        self._parts.operations.retune(name, pinned, priority)
        return self.model(name)

    async def reconfigure(self, config: Config, *, dry_run: bool = False, keeps_tuned: bool = False) -> Reconfiguration:
        """Serve ``config`` from now on: models that did not change keep running, and no request fails.

        Returns once models that were loaded are loaded with their new settings.

        Args:
            config: the new configuration.
            dry_run: only return what would be done.
            keeps_tuned: whether what ``retune`` has changed stays, because nobody has read the configuration again.

        Raises:
            ConfigError: files of new or changed models are missing or unusable, or there is no such device; nothing was
                changed.
        """
        return await self._parts.reconfigurer.reconfigure(lambda _: config, dry_run=dry_run, keeps_tuned=keeps_tuned)

    async def revise(self, change: Callable[[Config], Config]) -> Reconfiguration:
        """Serve what ``change`` returns for the configuration in force: see ``reconfigure``.

        Unlike there, no other change can come between reading the configuration and replacing it, and what ``retune``
        has changed stays.

        Raises:
            ConfigError: as ``reconfigure``, and what ``change`` raises.
        """
        return await self._parts.reconfigurer.reconfigure(change, dry_run=False, keeps_tuned=True)

    # Parts

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.directory.config

    @property
    def checks(self) -> CapabilityChecks:
        """Refuses what models cannot do before anything is done for a request."""
        return self._parts.checks

    @property
    def health(self) -> Health:
        """Whether models serve."""
        return self._parts.health

    @property
    def controller(self) -> LifecycleController:
        """The lifecycle controller, which runs the models.

        Raises:
            RuntimeError: the yard is not started.
        """
        return self._parts.controller

    @property
    def _parts(self) -> YardParts:
        if self._started is None:
            raise RuntimeError("The yard is not started: call start() first")
        return self._started
