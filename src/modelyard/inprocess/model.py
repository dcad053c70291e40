"""Models for programs without an event loop, and for many threads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Self

from modelyard.config import Config
from modelyard.errors import Closed, ModelyardError
from modelyard.inprocess.async_model import AsyncModel, Mode
from modelyard.inprocess.blocking_requests import BlockingRequests
from modelyard.inprocess.loop_thread import LoopThread
from modelyard.inprocess.model_repr import described
from modelyard.inprocess.model_table import ModelDescription
from modelyard.inprocess.progress import Shown
from modelyard.inprocess.tools.program_tools import ProgramTools
from modelyard.inprocess.tools.tool_info import ToolInfo
from modelyard.mcp.connection import ServerStatus
from modelyard.yard.stats.status import Plan, Status
from modelyard.yard.yard import Yard

if TYPE_CHECKING:
    import openai
    from starlette.types import ASGIApp

# How long a ``repr`` waits for an event loop that is busy.
_REPR_S = 1.0


class Model(BlockingRequests):
    """The models of a configuration, on an event loop in a thread of its own. All methods are thread-safe.

    A request names a model by id or alias; a request that names none goes to the default model. A model that is not
    loaded is loaded first. ``builder.build()`` returns a Model; leave its context, or ``close`` it, to free everything.
    An interrupt (Ctrl-C) ends the call that it interrupts, and cancels the work of that call.

    Each method raises ``Closed`` after ``close``, and ``ForkedProcess`` in a forked child.

    Attributes:
        tools: the tools that the models may call, as a list of ``ToolInfo``; ``tools_of`` has those of one model.
        mcp_servers: the MCP servers, each with its ``name``, ``state`` and ``reason``, and the number of its ``tools``.

    Args:
        config: the models, and how each is served.
        make_yard: makes the yard; tests pass another one.
        progress: where the progress of loads is shown; see ``Buildable.with_progress``.
        tools: functions that the models may call, and who approves calls.

    Raises:
        ConfigError, InsufficientMemory, ModelLoadFailed: as ``Buildable.build``.
    """

    thread: LoopThread[AsyncModel]

    def __init__(
        self,
        config: Config,
        make_yard: Callable[[Config], Yard] = Yard,
        *,
        progress: Shown = False,
        tools: ProgramTools = ProgramTools(),  # noqa: B008 (immutable)
    ) -> None:
        self.thread = LoopThread(lambda: AsyncModel(config, make_yard, progress=progress, tools=tools), "modelyard")

    def close(self) -> None:
        """End running requests with an error, free every model, and end the thread. Idempotent."""
        self.thread.close()

    def __enter__(self) -> Self:
        self.thread.check()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The attribute is missing if the constructor failed. A finalizer may run on any thread, so it must not block.
        if hasattr(self, "thread") and not self.thread.is_closed:
            self.thread.request_close()
            warnings.warn("A Model was not closed: use it as a context, or close it.", ResourceWarning, stacklevel=2)

    def __repr__(self) -> str:
        name = type(self).__name__
        try:
            described_models: Future[str] = self.thread.submit(lambda twin: _described(name, twin))
            return described_models.result(_REPR_S)
        except ModelyardError as unusable:
            return f"<{name}: {unusable.code}>"
        except CancelledError:
            # It was closed meanwhile.
            return f"<{name}: {Closed.code}>"
        except TimeoutError:
            return f"<{name}: busy>"

    def openai_client(self, **options: Any) -> openai.OpenAI:
        """Return OpenAI's own client on these models, without a socket: code that takes such a client runs in process.

        Requests go through the HTTP application, and answers stream as over HTTP. The client raises its own exceptions
        and works until the model is closed. It does not retry by default.

        Args:
            options: arguments of ``openai.OpenAI``.

        Raises:
            MissingExtra: the package ``openai`` is not installed: ``pip install 'modelyard[openai]'``.
        """
        from modelyard.inprocess.transport import openai_client

        return openai_client(self._app(), lambda work: self.thread.call(lambda _: work()), **options)

    def async_openai_client(self, **options: Any) -> openai.AsyncOpenAI:
        """Return OpenAI's asynchronous client on these models, for any event loop; see ``openai_client``."""
        from modelyard.inprocess.transport import async_openai_client

        return async_openai_client(self._app(), **options)

    def _app(self) -> ASGIApp:
        from modelyard.inprocess.asgi import OtherLoopApp, in_process_app

        return OtherLoopApp(self.thread.call_sync(lambda twin: in_process_app(twin.yard, twin.agent)), self.thread)

    # Generated from async_model.py by `make docs`

    def wait_for_mcp_servers(self, timeout_s: float = 60.0) -> None:
        """Return when each MCP server was tried once, connected or not, and at the latest after ``timeout_s``.

        A server that takes longer, or fails, is tried again, and its tools join in later. A build waits like this.
        """
        self.thread.call(lambda twin: twin.wait_for_mcp_servers(timeout_s))

    @property
    def tools(self) -> list[ToolInfo]:
        """The tools that the models may call, each once; ``tools_of`` has those of one model.

        They are the functions of ``with_tools``, and the tools of the MCP servers that are connected at the moment.
        """
        return self.thread.call_sync(lambda twin: twin.tools)

    @property
    def mcp_servers(self) -> list[ServerStatus]:
        """The states of the MCP servers, in the order of the configuration: connected or not, and why."""
        return self.thread.call_sync(lambda twin: twin.mcp_servers)

    def tools_of(self, model: str | None = None) -> list[ToolInfo]:
        """Return the tools that a model, by id or alias, may call; None: the default model.

        Raises:
            ModelNotFound, ModelRequired: as ``send_chat_request_with_model``.
        """
        return self.thread.call_sync(lambda twin: twin.tools_of(model))

    def max_sequence_length(self) -> int | None:
        """Call ``max_sequence_length_with_model`` with the default model."""
        return self.max_sequence_length_with_model()

    def max_sequence_length_with_model(self, model: str | None = None) -> int | None:
        """Return how many tokens a prompt and its answer may have together; None until the first load of the model.

        Raises:
            ModelNotFound, ModelRequired: as ``send_chat_request_with_model``.
        """
        return self.thread.call_sync(lambda twin: twin.max_sequence_length_with_model(model))

    def list_models(self) -> list[str]:
        """Return the ids of all models, loaded or not, in the order in which they were added."""
        return self.thread.call_sync(lambda twin: twin.list_models())

    def list_models_with_status(self) -> list[tuple[str, Status]]:
        """Return the ids of all models, each with "loaded", "unloaded" or "reloading"."""
        return self.thread.call_sync(lambda twin: twin.list_models_with_status())

    def is_model_loaded(self, model: str) -> bool:
        """Whether a model, by id or alias, is loaded and serves.

        Raises:
            ModelNotFound: no model has that name.
        """
        return self.thread.call_sync(lambda twin: twin.is_model_loaded(model))

    def get_default_model_id(self) -> str | None:
        """Return the id of the model for requests that name none; None: such requests are refused."""
        return self.thread.call_sync(lambda twin: twin.get_default_model_id())

    def set_default_model_id(self, model: str) -> None:
        """Route requests that name no model to this model, by id or alias.

        Raises:
            ModelNotFound: no model has that name.
        """
        self.thread.call(lambda twin: twin.set_default_model_id(model))

    def add_model(self, builder: ModelDescription) -> None:
        """Add a model, and load it unless its builder says "on-demand". Other models serve meanwhile.

        Raises:
            ConfigError: the description is invalid, its name is taken, or files are missing or unusable.
            InsufficientMemory, ModelLoadFailed: the model cannot be loaded. No model is added after any error.
        """
        self.thread.call(lambda twin: twin.add_model(builder))

    def add_model_with_alias(self, alias: str, builder: ModelDescription) -> None:
        """Call ``add_model`` for a model whose id becomes ``alias``."""
        self.thread.call(lambda twin: twin.add_model_with_alias(alias, builder))

    def remove_model(self, model: str) -> None:
        """Remove a model, by id or alias. Its running requests finish, and then its memory is freed.

        If it was the default model, there is no default until one is set, or until a single model is left.

        Raises:
            ModelNotFound: no model has that name.
            InvalidRequest: it is the only model.
            ConfigError: another model uses it as its draft model.
        """
        self.thread.call(lambda twin: twin.remove_model(model))

    def unload_model(self, model: str, mode: Mode = "drain") -> None:
        """Free the memory of a model, by id or alias; its next request loads it again. Idempotent.

        Args:
            mode: what happens to its running requests. "drain": they finish; "suspend": they pause until the model is
                loaded again; "force": they end with an error; "park": they finish, and the weights stay in memory.

        Raises:
            ModelNotFound: no model has that name.
            ModelBusy: running requests did not finish in time.
            InvalidRequest: ``mode`` is unknown.
        """
        self.thread.call(lambda twin: twin.unload_model(model, mode))

    def reload_model(self, model: str) -> None:
        """Load a model, by id or alias, unless it is loaded. Idempotent.

        Raises:
            ModelNotFound: no model has that name.
            ModelLoadFailed, InsufficientMemory, ModelLoading: the model cannot be loaded, or not in time.
        """
        self.thread.call(lambda twin: twin.reload_model(model))

    def plan(self, model: str) -> Plan:
        """Return what a load of a model, by id or alias, would do now: its memory, and what it would evict.

        Raises:
            ModelNotFound: no model has that name.
            ModelLoadFailed: files of the model are missing or unusable.
        """
        return self.thread.call(lambda twin: twin.plan(model))

    # End of the generated methods


async def _described(name: str, twin: AsyncModel) -> str:
    return described(name, twin.yard)
