"""All models of one process, as HTTP, the command line and Python programs hold them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modelyard.config import Config, Model, default_model, effective_cpu
from modelyard.engine.messages import Prompt, Sampling, SequenceId, Submit
from modelyard.engine.settings import EngineSettings
from modelyard.errors import ConfigError, UnusableModel
from modelyard.hub import ModelFiles, resolve
from modelyard.yard.conductor import Conductor, EngineHandle, Publish
from modelyard.yard.generation import Generation
from modelyard.yard.residency import Residence
from modelyard.yard.router import Router

# Requests that may wait behind those that run, for each model.
WAITING_ROOM = 512

Status = Literal["loaded", "unloaded", "reloading"]

MakeHandle = Callable[[EngineSettings, Publish], EngineHandle]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a model. model None means the default; max_tokens None: as many as the context holds."""

    prompt: Prompt
    model: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model as a listing shows it.

    context_length (tokens), quantization, size_bytes (of the weights) and can_chat (it has a chat template) are None
    until it was loaded once. reason is why its last load, or its engine, failed.
    """

    id: str
    aliases: tuple[str, ...]
    status: Status
    is_default: bool
    created: int
    context_length: int | None
    quantization: str | None
    size_bytes: int | None
    can_chat: bool | None
    reason: str | None


class Yard:
    """The models of a configuration. Use it on the event loop that it was started on.

    Args:
        config: which models, and how each is served.
        make_engine: makes an engine of settings; the real one unless a test scripts it.
    """

    def __init__(self, config: Config, make_engine: MakeHandle | None = None) -> None:
        self._config = config
        self._models: Mapping[str, Model] = {model.id: model for model in config.models}
        self._router = Router({model.id: model.names for model in config.models}, default_model(config))
        self._make_handle = make_engine or _engine
        self._created = int(time.time())
        self._conductor: Conductor | None = None
        # Files that the start has checked, until their first load: a header of 262,144 tokens takes 0.2 s to read.
        self._checked: dict[str, ModelFiles] = {}

    async def start(self) -> None:
        """Load every model that is to be loaded at the start, side by side.

        Raises:
            ConfigError: files of some of them are missing or unusable; nothing was loaded.
            ModelLoadFailed: one could not be loaded; the others are freed again.
        """
        startup = [model for model in self._models.values() if model.load == "startup"]
        await self._check_files(startup)
        most_requests = self._config.runtime.max_seqs + WAITING_ROOM
        self._conductor = Conductor(self._models, self._make_engine, most_requests)
        loads = (self._conductor.reload(model.id) for model in startup)
        outcomes = await asyncio.gather(*loads, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                await self.close()
                raise outcome

    async def close(self, timeout_s: float = 30.0) -> None:
        """End what runs, free every model, refuse what comes. What is not free in time is left to the process's end."""
        if self._conductor is not None:
            await self._conductor.close(timeout_s)

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[Generation]:
        """Answer ``request``: the generation is entered when the model is there and has accepted the prompt.

        Leaving the context early ends the sequence before the engine's next step.

        Raises:
            ModelNotFound, ModelRequired: there is no such model.
            QueueFull: too many requests wait for it already.
            ModelLoadFailed: it is not loaded and cannot be.
            InvalidRequest: the prompt, or a setting, does not suit it.
        """
        model = self._router.route(request.model)

        def submit(sequence: SequenceId) -> Submit:
            return Submit(
                sequence, request.prompt, request.sampling, request.max_tokens, request.stop, request.ignore_eos
            )

        number, generation = self._running.submit(model, submit)
        try:
            await generation.accepted()
            yield generation
        finally:
            if not generation.is_over:
                self._running.abandon(number)

    def models(self) -> list[ModelStatus]:
        """All models, in the order of the configuration."""
        return [self._status(model) for model in self._models.values()]

    def model(self, name: str) -> ModelStatus:
        """One model, by id or alias.

        Raises:
            ModelNotFound: there is none of that name.
        """
        return self._status(self._models[self._router.route(name)])

    async def unload(self, name: str) -> ModelStatus:
        """Free a model when its running requests have ended; a later request loads it again. Idempotent.

        Raises:
            ModelNotFound: there is none of that name.
        """
        await self._running.unload(self._router.route(name))
        return self.model(name)

    async def reload(self, name: str) -> ModelStatus:
        """Have a model loaded, at once even where its last load failed a moment ago. Idempotent.

        Raises:
            ModelNotFound: there is none of that name.
            ModelLoadFailed: it could not be loaded.
        """
        await self._running.reload(self._router.route(name))
        return self.model(name)

    def load_progress(self) -> Mapping[str, float]:
        """Part of the weights that is read, 0 to 1, of every model whose load was begun."""
        return {} if self._conductor is None else self._conductor.load_progress

    @property
    def _running(self) -> Conductor:
        if self._conductor is None:
            raise RuntimeError("The yard is not started: call start() first")
        return self._conductor

    def _status(self, model: Model) -> ModelStatus:
        state = self._running.state.models[model.id]
        profile = self._running.profiles.get(model.id)
        words: dict[Residence, Status] = {Residence.LOADING: "reloading", Residence.LOADED: "loaded"}
        return ModelStatus(
            id=model.id,
            aliases=tuple(name for name in model.names if name != model.id),
            status=words.get(state.residence, "unloaded"),
            is_default=model.id == self._router.default,
            created=self._created,
            context_length=profile.context_length if profile else None,
            quantization=profile.quantization if profile else None,
            size_bytes=profile.size_bytes if profile else None,
            can_chat=profile.can_chat if profile else None,
            reason=state.reason if state.residence is Residence.FAILED else None,
        )

    async def _check_files(self, models: list[Model]) -> None:
        problems = []
        for model in models:
            try:
                self._checked[model.id] = await asyncio.to_thread(_find_files, model)
            except UnusableModel as unusable:
                problems.append(f"model '{model.id}': {unusable}")
        if problems:
            raise ConfigError("models", problems)

    async def _make_engine(self, model: str, publish: Publish) -> EngineHandle:
        try:
            checked = self._checked.pop(model, None)
            settings = await asyncio.to_thread(_settings, self._config, self._models[model], checked)
        except UnusableModel as unusable:
            # From here it goes to clients, whom the way to the file does not concern.
            source = self._models[model].source
            raise UnusableModel(str(unusable).replace(source, Path(source).name)) from unusable
        return self._make_handle(settings, publish)


def _find_files(model: Model) -> ModelFiles:
    quantization = model.quantization
    return resolve(
        model.source,
        quant=quantization.quant,
        isq=quantization.isq,
        from_uqff=quantization.from_uqff,
        kind=model.kind,
    )


def _settings(config: Config, model: Model, checked: ModelFiles | None) -> EngineSettings:
    files = checked or _find_files(model)
    return EngineSettings(
        name=model.id,
        paths=files.paths,
        quantization=files.quantization,
        context_length=model.device.max_seq_len,
        max_seqs=config.runtime.max_seqs,
        prefix_slots=config.runtime.prefix_cache_n,
        offload=not effective_cpu(config.models),
        chat_template=model.chat_template.read_text("utf-8") if model.chat_template else None,
        sampling=Sampling(**model.sampling.model_dump()),
    )


def _engine(settings: EngineSettings, publish: Publish) -> EngineHandle:
    # Imported here: it loads llama.cpp, which a scripted yard and the command line's --help do without.
    from modelyard.engine.engine import Engine

    return Engine(settings, publish)
