"""Models on the caller's event loop.

``scripts/write_model.py`` writes the methods of ``Model``, which blocks, from those of ``AsyncModel``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

from modelyard.agent.agent import Agent
from modelyard.config import Config, default_model, revise
from modelyard.config import Model as ModelTable
from modelyard.errors import Closed, ForkedProcess, InvalidRequest, ModelLoadFailed, WrongEventLoop
from modelyard.hub import Progress
from modelyard.inprocess.async_requests import AsyncRequests
from modelyard.inprocess.builder_words import worded_for_builder
from modelyard.inprocess.model_repr import described
from modelyard.inprocess.model_table import ModelDescription, model_table
from modelyard.inprocess.progress import ProgressDisplay, Shown
from modelyard.inprocess.requests import shown
from modelyard.inprocess.tools.program_tools import ModelTools, ProgramTools
from modelyard.inprocess.tools.source import ModelToolbox
from modelyard.inprocess.tools.tool_info import ToolInfo
from modelyard.mcp.clients import McpClients
from modelyard.mcp.connection import ServerStatus
from modelyard.yard.requests.context import current_caller
from modelyard.yard.residency.waiting import UnloadMode
from modelyard.yard.stats.status import Plan, Status
from modelyard.yard.yard import Yard

if TYPE_CHECKING:
    import openai

CLOSE_S: Final = 30.0
"""How long an engine that hangs delays the end of a model, unless the caller says otherwise."""

Mode = Literal["drain", "suspend", "force", "park"]


class AsyncModel(AsyncRequests):
    """The models of a configuration, on the event loop that it was started on.

    A request names a model by id or alias; a request that names none goes to the default model. A model that is not
    loaded is loaded first. ``await builder.build_async()`` returns an AsyncModel; leave its context, or ``aclose`` it,
    to free everything.

    Each method raises ``Closed`` after ``aclose``, ``ForkedProcess`` in a forked child, and ``WrongEventLoop`` on
    another event loop.

    Attributes:
        tools: the tools that the models may call, as a list of ``ToolInfo``; ``tools_of`` has those of one model.
        mcp_servers: the MCP servers, each with its ``name``, ``state`` and ``reason``, and the number of its ``tools``.

    Args:
        config: the models, and how each is served.
        make_yard: makes the yard; tests pass another one.
        progress: where the progress of loads is shown; see ``Buildable.with_progress``.
        tools: functions that the models may call, and who approves calls.
    """

    def __init__(
        self,
        config: Config,
        make_yard: Callable[[Config], Yard] = Yard,
        *,
        progress: Shown = False,
        tools: ProgramTools = ProgramTools(),  # noqa: B008 (immutable)
    ) -> None:
        if not isinstance(config, Config):
            raise InvalidRequest(f"A builder makes models: TextModelBuilder(…).build(); this is {shown(config)}.")
        self._yard = make_yard(config)
        self._mcp = McpClients(config)
        self._yard.directory.followers.append(self._mcp.reconfigure)
        self._toolbox = ModelToolbox(tools, (self._mcp,), config.mcp.max_result)
        super().__init__(self._yard, ProgressDisplay(progress, self._yard.monitor.load_progress), self._toolbox)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._is_closed = False
        # Each change of the models starts from the configuration that the previous change left.
        self._change_lock = asyncio.Lock()

    async def start(self) -> None:
        """Load the models whose ``load`` is "startup". MCP servers connect meanwhile, and afterwards.

        Raises:
            ConfigError, InsufficientMemory, ModelLoadFailed: as ``Buildable.build``. Everything is freed then, and
                also where the call is cancelled.
        """
        self._loop = asyncio.get_running_loop()
        try:
            self._mcp.start()
            await self._display.during(self._yard.start())
        except BaseException:
            await self.aclose()
            raise

    async def start_with_tools(self) -> None:
        """Load the models like ``start``, and wait for the MCP servers, so that the first request has their tools.

        Raises:
            ConfigError, InsufficientMemory, ModelLoadFailed: as ``start``.
        """
        await self.start()
        try:
            await self.wait_for_mcp_servers()
        except BaseException:
            await self.aclose()
            raise

    async def wait_for_mcp_servers(self, timeout_s: float = 60.0) -> None:
        """Return when each MCP server was tried once, connected or not, and at the latest after ``timeout_s``.

        A server that takes longer, or fails, is tried again, and its tools join in later. A build waits like this.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._mcp.wait_settled(), timeout_s)

    def load_progress(self) -> dict[str, Progress]:
        """Progress of each model whose files are being prepared, or whose load has started. Works during ``start``."""
        return self._yard.monitor.load_progress()

    async def aclose(self, timeout_s: float = CLOSE_S) -> None:
        """End running requests with an error, and free every model. Idempotent.

        An engine that hangs for ``timeout_s`` is left running until the process ends.
        """
        if not self._is_closed:
            self._is_closed = True
            await _close(self._yard, self._mcp, timeout_s)

    async def __aenter__(self) -> Self:
        if self._loop is None:
            await self.start_with_tools()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return described(type(self).__name__, None if self._is_closed else self._yard)

    def __del__(self) -> None:
        # An attribute is missing if the constructor failed.
        loop: asyncio.AbstractEventLoop | None = getattr(self, "_loop", None)
        if loop is None or self._is_closed or os.getpid() != self._pid:
            return
        if not loop.is_closed():
            loop.call_soon_threadsafe(_close_later, self._yard, self._mcp)
        warnings.warn("An AsyncModel was not closed: use it as a context, or aclose it.", ResourceWarning, stacklevel=2)

    @property
    def yard(self) -> Yard:
        """The yard that runs the models.

        Raises:
            Closed, ForkedProcess: the model was closed, or belongs to the parent process.
            WrongEventLoop: the caller is not on the event loop of the model.
        """
        if os.getpid() != self._pid:
            raise ForkedProcess(self._pid)
        if self._is_closed:
            raise Closed
        if self._loop is None:
            raise WrongEventLoop("This AsyncModel was not started. Enter its context, or get one from build_async().")
        if self._loop is not _running_loop():
            raise WrongEventLoop(
                "An AsyncModel is used on the event loop that it was started on. Build a Model to use it elsewhere."
            )
        return self._yard

    @property
    def agent(self) -> Agent:
        """Runs the tools for the answers of the models, in process and over HTTP."""
        return self._toolbox.agent

    @property
    def tools(self) -> list[ToolInfo]:
        """The tools that the models may call, each once; ``tools_of`` has those of one model.

        They are the functions of ``with_tools``, and the tools of the MCP servers that are connected at the moment.
        """
        found = [tool for model in self.yard.models() for tool in self.tools_of(model.id)]
        return list({(tool.server, tool.name): tool for tool in found}.values())

    @property
    def mcp(self) -> McpClients:
        """The clients of the MCP servers that are configured."""
        return self._mcp

    @property
    def mcp_servers(self) -> list[ServerStatus]:
        """The states of the MCP servers, in the order of the configuration: connected or not, and why."""
        self.yard  # noqa: B018 (raises where the model cannot be used)
        return list(self._mcp.statuses())

    def tools_of(self, model: str | None = None) -> list[ToolInfo]:
        """Return the tools that a model, by id or alias, may call; None: the default model.

        Raises:
            ModelNotFound, ModelRequired: as ``send_chat_request_with_model``.
        """
        model_id = self.yard.configured(None if model is None else _named(model)).id
        return [ToolInfo.of(tool) for tool in self.agent.tools(model_id, current_caller())]

    def max_sequence_length(self) -> int | None:
        """Call ``max_sequence_length_with_model`` with the default model."""
        return self.max_sequence_length_with_model()

    def max_sequence_length_with_model(self, model: str | None = None) -> int | None:
        """Return how many tokens a prompt and its answer may have together; None until the first load of the model.

        Raises:
            ModelNotFound, ModelRequired: as ``send_chat_request_with_model``.
        """
        return self.yard.model(self.yard.configured(None if model is None else _named(model)).id).context_length

    def async_openai_client(self, **options: Any) -> openai.AsyncOpenAI:
        """Return OpenAI's own client on these models, without a socket: code that takes such a client runs in process.

        Requests go through the HTTP application, and answers stream as over HTTP. The client raises its own exceptions
        and works until the model is closed. It does not retry by default.

        Args:
            options: arguments of ``openai.AsyncOpenAI``.

        Raises:
            MissingExtra: the package ``openai`` is not installed: ``pip install 'modelyard[openai]'``.
        """
        from modelyard.inprocess.asgi import UsableApp, in_process_app
        from modelyard.inprocess.transport import async_openai_client

        app = UsableApp(in_process_app(self.yard, self.agent), lambda: self.yard)
        return async_openai_client(app, **options)

    # Models

    def list_models(self) -> list[str]:
        """Return the ids of all models, loaded or not, in the order in which they were added."""
        return [model.id for model in self.yard.models()]

    def list_models_with_status(self) -> list[tuple[str, Status]]:
        """Return the ids of all models, each with "loaded", "unloaded" or "reloading"."""
        return [(model.id, model.status) for model in self.yard.models()]

    def is_model_loaded(self, model: str) -> bool:
        """Whether a model, by id or alias, is loaded and serves.

        Raises:
            ModelNotFound: no model has that name.
        """
        return self.yard.model(_named(model)).status == "loaded"

    def get_default_model_id(self) -> str | None:
        """Return the id of the model for requests that name none; None: such requests are refused."""
        return default_model(self.yard.config)

    async def set_default_model_id(self, model: str) -> None:
        """Route requests that name no model to this model, by id or alias.

        Raises:
            ModelNotFound: no model has that name.
        """
        async with self._change_lock:
            yard = self.yard
            model_id = yard.model(_named(model)).id
            yard.directory.replace_config(revise(yard.config, yard.config.models, model_id, "set_default_model_id"))

    async def add_model(self, builder: ModelDescription) -> None:
        """Add a model, and load it unless its builder says "on-demand". Other models serve meanwhile.

        Raises:
            ConfigError: the description is invalid, its name is taken, or files are missing or unusable.
            InsufficientMemory, ModelLoadFailed: the model cannot be loaded. No model is added after any error.
        """
        await self._add(model_table(builder, None), builder.tools())

    async def add_model_with_alias(self, alias: str, builder: ModelDescription) -> None:
        """Call ``add_model`` for a model whose id becomes ``alias``."""
        await self._add(model_table(builder, alias), builder.tools())

    async def remove_model(self, model: str) -> None:
        """Remove a model, by id or alias. Its running requests finish, and then its memory is freed.

        If it was the default model, there is no default until one is set, or until a single model is left.

        Raises:
            ModelNotFound: no model has that name.
            InvalidRequest: it is the only model.
            ConfigError: another model uses it as its draft model.
        """
        async with self._change_lock:
            await self._remove(self.yard.model(_named(model)).id)

    async def unload_model(self, model: str, mode: Mode = "drain") -> None:
        """Free the memory of a model, by id or alias; its next request loads it again. Idempotent.

        Args:
            mode: what happens to its running requests. "drain": they finish; "suspend": they pause until the model is
                loaded again; "force": they end with an error; "park": they finish, and the weights stay in memory.

        Raises:
            ModelNotFound: no model has that name.
            ModelBusy: running requests did not finish in time.
            InvalidRequest: ``mode`` is unknown.
        """
        if mode not in get_args(Mode):
            raise InvalidRequest(f"'{mode}' is no mode. Choose one of {', '.join(get_args(Mode))}.", "mode")
        await self.yard.unload(_named(model), UnloadMode(mode))

    async def reload_model(self, model: str) -> None:
        """Load a model, by id or alias, unless it is loaded. Idempotent.

        Raises:
            ModelNotFound: no model has that name.
            ModelLoadFailed, InsufficientMemory, ModelLoading: the model cannot be loaded, or not in time.
        """
        await self._display.during(self.yard.reload(_named(model)))

    async def plan(self, model: str) -> Plan:
        """Return what a load of a model, by id or alias, would do now: its memory, and what it would evict.

        Raises:
            ModelNotFound: no model has that name.
            ModelLoadFailed: files of the model are missing or unusable.
        """
        return await self.yard.plan(_named(model))

    async def _add(self, table: ModelTable, tools: ModelTools) -> None:
        async with self._change_lock:
            yard = self.yard
            config = yard.config
            with worded_for_builder(several=True):
                extended = revise(config, (*config.models, table), default_model(config), "add_model")
            before = self._toolbox.program
            program = before.with_model(table.id, tools)
            program.check((table.id,), "add_model")
            self._toolbox.program = program
            try:
                await self._display.during(yard.reconfigure(extended, keeps_tuned=True))
                if reason := yard.health.failed().get(table.id):
                    raise ModelLoadFailed(table.id, reason)
                if table.load == "startup":
                    await self._display.during(yard.reload(table.id))
            except BaseException:
                self._toolbox.program = before
                if not self._is_closed and yard.config is extended:
                    await self._remove(table.id)
                raise

    async def _remove(self, model: str) -> None:
        yard = self.yard
        config = yard.config
        remaining = [entry for entry in config.models if entry.id != model]
        if not remaining:
            raise InvalidRequest(f"'{model}' is the only model. Add another before you remove it, or close them all.")
        default = default_model(config)
        left = revise(config, remaining, None if default == model else default, "remove_model")
        await yard.reconfigure(left, keeps_tuned=True)
        self._toolbox.program = self._toolbox.program.without_model(model)


def _named(model: str) -> str:
    """Return the name of a model.

    Raises:
        InvalidRequest: it is no text.
    """
    if not isinstance(model, str):
        raise InvalidRequest(f"A model is named by its id or alias, a text; this is {shown(model)}.", "model")
    return model


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _close(yard: Yard, mcp: McpClients, timeout_s: float = CLOSE_S) -> None:
    """Free the models and end the MCP servers at the same time."""
    ending = asyncio.ensure_future(mcp.aclose())
    try:
        await yard.close(timeout_s)
    finally:
        await ending


def _close_later(yard: Yard, mcp: McpClients) -> None:
    closing = asyncio.ensure_future(_close(yard, mcp))
    # Nobody else reads how it ends.
    closing.add_done_callback(lambda done: done.cancelled() or done.exception())
