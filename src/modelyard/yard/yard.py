"""All models of one process, as HTTP, the command line and Python programs hold them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Final

from modelyard.config import Config, Model
from modelyard.errors import (
    InsufficientMemory,
    ModelLoadFailed,
    ModelyardError,
    QueueFull,
    TakesNoImages,
    TakesNoSound,
    UnusableModel,
)
from modelyard.hub import Progress, Senses, Stores
from modelyard.protocol.requests import Embed, Rank, Submit, Tokenize
from modelyard.protocol.values import SequenceId
from modelyard.system.malloc import share_one_heap
from modelyard.system.memory import available_bytes
from modelyard.yard.directory import ModelDirectory
from modelyard.yard.from_config import memory_budget, stores_of, traits
from modelyard.yard.reconfigure import Reconfiguration, reconfigure
from modelyard.yard.requests.account import Account
from modelyard.yard.requests.context import Caller, current_caller
from modelyard.yard.requests.generation import TokenStream
from modelyard.yard.requests.one_shot import Embeddings, PendingResult, Ranking, Tokenization
from modelyard.yard.requests.requests import EmbeddingRequest, RankRequest, Request, TokenizeRequest, WaitOptions
from modelyard.yard.requests.token_estimate import UNCOUNTED, estimate
from modelyard.yard.residency.state import LoadState, Residency, UnloadMode, WaitKind, WaitPolicy
from modelyard.yard.runtime.capabilities import Capabilities, Task, refusal
from modelyard.yard.runtime.controller import LifecycleController
from modelyard.yard.runtime.engine_factory import EngineFactory, MakeEngine, ModelSpec
from modelyard.yard.runtime.isolation import Host
from modelyard.yard.runtime.startup import load_what_fits
from modelyard.yard.stats.snapshot import MetricsSnapshot, metrics_snapshot
from modelyard.yard.stats.status import STATUS, ModelStatus, Plan, leaves_in_s, memory_of, plan, stage
from modelyard.yard.stats.watch import Observer

MAX_WAITING_LOADS: Final = 512
"""Calls that wait for one model to be loaded, beside the requests for it."""

NO_SEQUENCE: Final = SequenceId(0)
"""The number of a request that is only looked at."""


class Yard:
    """The models of a configuration. Use it on the event loop that it was started on.

    Args:
        config: which models, and how each is served.
        make_engine: makes an engine of settings; the real one unless a test scripts it.
        policy: the bounds of waiting.
        stores: where files come from; None: as the configuration says.
        auto_host: where engines run of models that nothing is known against, where the configuration does not say.
    """

    def __init__(
        self,
        config: Config,
        make_engine: MakeEngine | None = None,
        policy: WaitPolicy | None = None,
        stores: Stores | None = None,
        auto_host: Host = "thread",
    ) -> None:
        self.directory = ModelDirectory(config)
        self.factory = EngineFactory(make_engine, stores or stores_of(config), auto_host)
        # Of the machine, before any model was loaded.
        self.available_bytes = 0
        self._policy = policy or WaitPolicy()
        self._created = int(time.time())
        self._controller: LifecycleController | None = None
        self._reconfiguring = asyncio.Lock()
        self._kinds = Capabilities(self.factory)

    async def start(self) -> None:
        """Load every model that is to be loaded at the start, side by side, as far as the memory budget goes.

        Raises:
            ConfigError: files of some of them are missing or unusable; nothing was loaded.
            InsufficientMemory: one of them does not fit the budget by itself; nothing was loaded.
            ModelLoadFailed: one could not be loaded; the others are freed again.
        """
        share_one_heap()
        self.factory.specs = {model.id: ModelSpec(self.config, model) for model in self.config.models}
        startup = [model.id for model in self.config.models if model.load == "startup"]
        self.available_bytes = available_bytes()
        budget = self.factory.budget_bytes = memory_budget(self.config, self.available_bytes)
        footprints = await self.factory.check(startup)
        for name, footprint in footprints.items():
            if footprint.total_bytes > budget:
                raise InsufficientMemory(name, footprint.total_bytes, budget)
        models = {model.id: traits(self.config, model) for model in self.config.models}
        self._controller = LifecycleController(
            Residency.of(models, budget, self._policy), self.factory, self.factory.discard
        )
        self.factory.files.on_progress = self._controller.preparing
        outcomes = await asyncio.gather(*load_what_fits(self._controller, footprints), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                await self.close()
                raise outcome

    async def close(self, timeout_s: float = 30.0) -> None:
        """End what runs, free every model, refuse what comes. What is not free in time is left to the process's end."""
        if self._controller is not None:
            await self._controller.close(timeout_s)
        self.factory.close()

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[TokenStream]:
        """Answer ``request``: the generation is entered when the model is there and has accepted the prompt.

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
        await self.check(request.model, "text")
        with self.submit(request) as generation:
            await generation.accepted()
            yield generation

    @contextmanager
    def submit(self, request: Request) -> Iterator[TokenStream]:
        """As ``generate``, but entered at once: the generation may still wait for its model, or be refused.

        Raises:
            ModelNotFound, ModelRequired: there is no such model.
        """
        model, caller = self.directory.router.route(request.model), current_caller()
        caller.check_answer(request.max_tokens)
        urgency, priority = self._urgency(model, request.urgency, caller)

        def submit(sequence: SequenceId) -> Submit:
            return replace(
                request.message(sequence, priority),
                cache_salt=caller.cache_salt,
                max_context=caller.max_context,
                max_answer=caller.max_tokens,
            )

        controller = self.controller
        account = self._begin(model, caller, submit)
        number, generation = controller.submit(
            self.directory.residency_names[model], submit, urgency, caller.place_owner
        )
        generation.attach_account(account)
        caller.requests.append(generation)
        try:
            yield generation
        finally:
            if not generation.is_over:
                controller.abandon(number)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """The vectors of texts. Requests that come at the same time share batches; a cancelled one leaves at once.

        Raises:
            ModelNotFound, ModelRequired, QueueFull, ModelLoading, InsufficientMemory, ModelLoadFailed: as ``generate``.
            InvalidRequest: an input is empty, too long, or holds a token that the model does not know.
            UnsupportedOperation: it is no embedding model.
        """
        await self.check(request.model, "embedding")
        model = self.directory.router.route(request.model)
        with self._asked(model, request.message, request.urgency) as inquiry:
            return await inquiry.embedded()

    async def rank(self, request: RankRequest) -> Ranking:
        """How well documents answer a query. Shares batches as ``embed`` does; a cancelled request leaves at once.

        Raises:
            ModelNotFound, ModelRequired, QueueFull, ModelLoading, InsufficientMemory, ModelLoadFailed: as ``generate``.
            InvalidRequest: a document, with the query, is too long.
            UnsupportedOperation: it is no reranker.
        """
        await self.check(request.model, "rerank")
        model = self.directory.router.route(request.model)
        with self._asked(model, request.message, request.urgency) as inquiry:
            return await inquiry.ranked()

    async def tokenize(self, request: TokenizeRequest) -> Tokenization:
        """The tokens of a text or a conversation, of any model. Streams do not wait for it.

        Raises:
            ModelNotFound, ModelRequired, QueueFull, ModelLoading, InsufficientMemory, ModelLoadFailed: as ``generate``.
            InvalidRequest: it is too long, or the model's template refuses it.
            UnsupportedOperation: it is a chat, and the model has no template for one.
        """
        model = self.directory.router.route(request.model)

        def ask(sequence: SequenceId, _priority: int) -> Tokenize:
            return replace(request.message(sequence), cache_salt=current_caller().cache_salt)

        with self._asked(model, ask, request.urgency) as inquiry:
            return await inquiry.tokenized()

    @contextmanager
    def _asked(
        self, model: str, message: Callable[[SequenceId, int], Embed | Rank | Tokenize], urgency: WaitOptions
    ) -> Iterator[PendingResult]:
        controller, caller = self.controller, current_caller()
        urgency, priority = self._urgency(model, urgency, caller)

        def ask(sequence: SequenceId) -> Embed | Rank | Tokenize:
            asked = message(sequence, priority)
            return asked if isinstance(asked, Tokenize) else replace(asked, max_context=caller.max_context)

        account = self._begin(model, caller, ask)
        number, inquiry = controller.submit_one_shot(
            self.directory.residency_names[model], ask, urgency, caller.place_owner
        )
        inquiry.attach_account(account)
        caller.requests.append(inquiry)
        try:
            yield inquiry
        finally:
            if not inquiry.is_over:
                controller.abandon(number)

    async def check(self, name: str | None, wanted: Task) -> None:
        """Refuse what a model cannot do before anything is done for it.

        Args:
            name: id or alias of the model; None means the default.
            wanted: of it.

        Raises:
            ModelNotFound, ModelRequired: there is no such model.
            UnsupportedOperation: it does something else.
        """
        model = self.directory.router.route(name)
        kind = await self._kinds.kind_of(self.directory.residency_names[model])
        if kind is None or refusal(model, kind, wanted, {}) is None:
            return
        # What is said instead is for its eyes.
        ids = current_caller().permitted_models(entry.id for entry in self.config.models)
        kinds = await asyncio.gather(*(self._kinds.kind_of(self.directory.residency_names[other]) for other in ids))
        refused = refusal(model, kind, wanted, dict(zip(ids, kinds, strict=True)))
        assert refused is not None
        raise refused

    async def check_senses(self, name: str | None, *, image: str | None, sound: str | None) -> Senses | None:
        """Refuse images and sound that a model does not take, before anything is done for it.

        Args:
            name: id or alias of the model; None means the default.
            image, sound: the request's field with the first image, and with the first clip of sound; None: there is
                none.

        Returns:
            What the model takes; None where nobody has looked at its files, and that takes long. Its engine refuses
            what it does not take.

        Raises:
            ModelNotFound, ModelRequired: there is no such model.
            TakesNoImages, TakesNoSound: it does not take what there is.
        """
        model = self.directory.router.route(name)
        senses = await self._kinds.senses(self.directory.residency_names[model])
        status = self.model(model)
        if image is not None and status.can_see is False:
            raise TakesNoImages(model, image, [other.id for other in await self._looked_at() if other.can_see])
        if sound is not None and status.can_hear is False:
            raise TakesNoSound(model, sound, [other.id for other in await self._looked_at() if other.can_hear])
        return senses

    async def _looked_at(self) -> list[ModelStatus]:
        """All models that the caller may use, once their files were looked at, as far as that does not take long."""
        await asyncio.gather(*(self._kinds.senses(self.directory.residency_names[model.id]) for model in self.models()))
        return self.models()

    def _urgency(self, model: str, asked: WaitOptions, caller: Caller) -> tuple[WaitOptions, int]:
        """How a request waits, and its priority: that of the request, else that of its model."""
        own = self.controller.state.models[self.directory.residency_names[model]].policy.priority
        urgency = caller.permitted_wait(asked, own)
        return urgency, own if urgency.priority is None else urgency.priority

    def _begin(
        self, model: str, caller: Caller, message: Callable[[SequenceId], Submit | Embed | Rank | Tokenize]
    ) -> Account | None:
        """Begin a request of ``caller``.

        Raises:
            RateLimited, ConcurrencyLimited: it may not have it now.
        """
        if caller.limits is None:
            return None
        if not caller.limits.counts_tokens:
            # To read a long conversation through takes time.
            return caller.limits.reserve(UNCOUNTED)
        profile = self.controller.profiles.get(self.directory.residency_names[model])
        room = self.configured(model).device.max_seq_len if profile is None else profile.context_length
        return caller.limits.reserve(estimate(message(NO_SEQUENCE), room))

    def stage(self, model: str) -> str:
        """What requests for ``model``, by id, wait for at the moment; "" where it serves."""
        name = self.directory.residency_names.get(model, model)
        if name not in self.controller.state.models:
            return ""
        if (preparing := self.factory.files.progress.get(name)) is not None:
            return f"{preparing.step} {preparing.fraction:.0%}"
        return stage(self.controller.state, name, self.controller.load_progress.get(name, 0.0))

    def models(self) -> list[ModelStatus]:
        """All models that the caller may use, in the order of the configuration."""
        caller = self._caller()
        return [self._status(model) for model in self.config.models if caller.may_use(model.id)]

    def model(self, name: str) -> ModelStatus:
        """One model, by id or alias.

        Raises:
            ModelNotFound: there is none of that name.
        """
        model = self.directory.router.route(name)
        return next(self._status(entry) for entry in self.config.models if entry.id == model)

    def configured(self, name: str | None) -> Model:
        """How a model is configured, by id or alias; None is the default.

        Raises:
            ModelNotFound, ModelRequired: there is no such model.
        """
        model = self.directory.router.route(name)
        return next(entry for entry in self.config.models if entry.id == model)

    def failed(self) -> dict[str, str]:
        """Models whose engine or load failed and that were not loaded since, with the reason: those that it may see."""
        caller = self._caller()
        return {name: caller.visible_reason(why) for name, why in self._failures() if caller.may_use(name)}

    @property
    def is_sound(self) -> bool:
        """Whether no engine and no load has failed, whoever asks."""
        return not any(self._failures())

    def _failures(self) -> Iterator[tuple[str, str]]:
        for model in self.config.models:
            failure = self.controller.state.models[self.directory.residency_names[model.id]].failure
            if failure is not None:
                yield model.id, failure

    def is_known(self, name: str) -> bool:
        """Whether the caller may know of a model of that name, where there is one."""
        caller, model = self._caller(), self.directory.router.resolve(name)
        return caller.models is None or (model is not None and caller.may_use(model))

    def is_ready(self, name: str) -> bool:
        """Whether there is a model of that name, and would begin a request at once, whoever asks."""
        model = self.directory.router.resolve(name)
        return model is not None and not self._unready(model)

    def unready(self, name: str) -> str:
        """Why a model, by id or alias, would not begin a request at once; "" where it would. Changes nothing.

        Raises:
            ModelNotFound: there is none of that name.
        """
        return self._caller().visible_reason(self._unready(self.directory.router.route(name)))

    def _caller(self) -> Caller:
        """Who calls, and knows what it must not hear."""
        caller = current_caller()
        self.directory.router.describe_models_to(caller)
        return caller

    def _unready(self, model: str) -> str:
        state = self.controller.state.models[self.directory.residency_names[model]]
        if state.failure is not None:
            return state.failure
        if state.load_state in (LoadState.UNLOADED, LoadState.PARKED) and state.first is None:
            return "not loaded"
        return "unloading" if state.is_draining else self.stage(model)

    def metrics(self) -> MetricsSnapshot:
        """All models in numbers."""
        return metrics_snapshot(self.controller.state, self.controller.tally)

    async def unload(self, name: str, mode: UnloadMode = UnloadMode.DRAIN) -> ModelStatus:
        """Free a model; a later request loads it again. Idempotent.

        mode says what becomes of its running requests: they end by themselves, they pause until the model is loaded
        again, or they end with an error. Parking waits for them, and then leaves the weights in memory.

        Raises:
            ModelNotFound: there is none of that name.
            ModelBusy: its requests did not end in time.
        """
        await self._done(
            self.controller.unload(self.directory.residency_names[self.directory.router.route(name)], mode)
        )
        return self.model(name)

    async def reload(self, name: str) -> ModelStatus:
        """Have a model loaded, at once even where its last load failed a moment ago. Idempotent.

        Raises:
            ModelNotFound: there is none of that name.
            ModelLoadFailed: it could not be loaded.
            InsufficientMemory: it does not fit the memory budget.
            ModelLoading: there was no memory for it in time.
            QueueFull: too many wait for that already, also where they have left.
        """
        model = self.directory.router.route(name)
        line = self.controller.state.models[self.directory.residency_names[model]].queue
        if (waiting := sum(wish.kind is WaitKind.LOAD for wish in line)) >= MAX_WAITING_LOADS:
            raise QueueFull(model, waiting)
        await self._done(self.controller.reload(self.directory.residency_names[model]))
        return self.model(name)

    async def _done(self, asked: asyncio.Future[None]) -> None:
        """Wait for what the caller asked for; what it fails with is for its eyes."""
        try:
            await asked
        except ModelyardError as error:
            raise self._caller().visible_error(error) from None

    async def plan(self, name: str) -> Plan:
        """What a load of a model would do now. Reads the files' headers at most; changes nothing.

        Raises:
            ModelNotFound: there is none of that name.
            ModelLoadFailed: its files are missing or unusable.
        """
        model = self.directory.router.route(name)
        key = self.directory.residency_names[model]
        state = self.controller.state
        if state.models[key].footprint is None:
            try:
                footprint = await self.factory.estimate(key)
            except UnusableModel as unusable:
                raise self._caller().visible_error(ModelLoadFailed(model, str(unusable))) from unusable
            state = self.controller.state
            models = {**state.models, key: state.models[key]._replace(footprint=footprint)}
            state = state._replace(models=models)
        return plan(state._replace(now=time.monotonic()), key).visible_to(self._caller())

    async def reconfigure(self, config: Config, *, dry_run: bool = False) -> Reconfiguration:
        """Serve ``config`` from now on: models that did not change keep running, and nobody gets an error.

        Returns when models that were loaded are loaded with their new settings. dry_run: only say what would be done.

        Raises:
            ConfigError: files of new or changed models are missing or unusable; nothing was changed.
        """
        async with self._reconfiguring:
            return await reconfigure(
                self.directory, self.factory, self.controller, config, self.available_bytes, dry_run=dry_run
            )

    def observer(self) -> AbstractContextManager[Observer]:
        """Somebody who hears of all changes of load state and of load progress."""
        return self.controller.watch.observer()

    def dismiss_observers(self, *, for_good: bool = True) -> None:
        """End all observers: they would read for ever, and a server that stops waits for its readers.

        for_good: those that come later, too, as nothing more happens.
        """
        self.controller.watch.close() if for_good else self.controller.watch.dismiss()

    def load_progress(self) -> dict[str, Progress]:
        """How far every model is whose files are prepared, or whose load was begun."""
        loads = {} if self._controller is None else self._controller.load_progress
        loading = {name: Progress("loading", fraction) for name, fraction in loads.items()}
        return loading | self.factory.files.progress

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.directory.config

    @property
    def controller(self) -> LifecycleController:
        """What runs the models."""
        if self._controller is None:
            raise RuntimeError("The yard is not started: call start() first")
        return self._controller

    def _status(self, model: Model) -> ModelStatus:
        name, controller, caller = self.directory.residency_names[model.id], self.controller, self._caller()
        state, profile = controller.state.models[name], controller.profiles.get(name)
        senses = self.factory.senses(name)
        memory_bytes, shared_bytes = memory_of(controller.state, name)
        return ModelStatus(
            id=model.id,
            aliases=tuple(name for name in model.names if name != model.id),
            kind=self.factory.kind(name),
            status=STATUS[state.load_state],
            is_default=model.id == self.directory.router.default,
            created=self._created,
            context_length=profile.context_length if profile else None,
            quantization=profile.quantization if profile else None,
            size_bytes=profile.size_bytes if profile else None,
            can_chat=profile.can_chat if profile else None,
            architecture=profile.architecture if profile else None,
            dimensions=(profile.dimensions or None) if profile else None,
            can_see=profile.can_see if profile else None if senses is None else senses.sees,
            can_hear=profile.can_hear if profile else None if senses is None else senses.hears,
            can_reason=profile.can_reason if profile else None,
            can_fill=profile.can_fill if profile else None,
            leaves_in_s=leaves_in_s(state, time.monotonic()),
            reason=None if state.failure is None else caller.visible_reason(state.failure),
            warnings=self.factory.warnings(name),
            memory_bytes=memory_bytes,
            shared_bytes=shared_bytes,
            is_pinned=state.policy.is_pinned,
            is_parked=state.load_state is LoadState.PARKED,
            load_s=state.load_s,
            restarts=state.restarts,
            last_death=caller.visible_reason(state.last_death) if state.last_death else None,
            is_isolated=state.is_isolated,
            progress=self._progress(name) if STATUS[state.load_state] == "reloading" else None,
        )

    def _progress(self, name: str) -> Progress | None:
        fraction = self.controller.load_progress.get(name)
        loading = None if fraction is None else Progress("loading", fraction)
        return self.factory.files.progress.get(name, loading)
