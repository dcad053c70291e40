"""What all builders share: how models are built, with which tools."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from modelyard.config import Config
from modelyard.errors import ConfigError
from modelyard.inprocess.mcp_settings import McpSettings
from modelyard.inprocess.progress import Shown
from modelyard.inprocess.tools.approval import ApprovalCallback
from modelyard.inprocess.tools.function_tool import FunctionTool
from modelyard.inprocess.tools.program_tools import ModelTools, ProgramTools

if TYPE_CHECKING:
    from modelyard.inprocess.async_model import AsyncModel
    from modelyard.inprocess.model import Model


class Buildable(ABC):
    """A description from which models can be built."""

    @abstractmethod
    def config(self) -> Config:
        """Return the description as a configuration.

        Raises:
            ConfigError: the description is invalid; the error lists every problem.
        """

    _progress: Shown = True
    _tools = ModelTools()

    def with_progress(self, progress: Shown = True) -> Self:
        """Set where downloads, conversions and loads are shown.

        Args:
            progress: True, the default: bars in a terminal or a notebook, and nothing elsewhere. False: nothing. A
                function: it is called with a ``LoadProgress`` whenever a load has come further, on the thread of the
                model's event loop, so it must not block; an exception of it ends the load.
        """
        if not (isinstance(progress, bool) or callable(progress)):
            raise ConfigError(type(self).__name__, [f"with_progress takes a function or a bool, not {progress!r}."])
        self._progress = progress
        return self

    def with_tools(self, functions: Sequence[Callable[..., Any] | FunctionTool]) -> Self:
        """Add functions that the model calls while it answers. On a builder of several models: that each of them calls.

        The library runs what a model calls, and lets it go on with the results. A function is described to the model by
        its name, its docstring and its annotations; see ``FunctionTool``. Requests to a server on the models use the
        same functions.

        Raises:
            ConfigError: no tool can be made of a function; the error lists every problem.
        """
        self._tools = self._tools.with_functions(functions, type(self).__name__)
        return self

    def with_tool_approval(self, callback: ApprovalCallback) -> Self:
        """Ask a function before each call of a tool, also of a tool of an MCP server.

        Args:
            callback: takes a ``ToolApproval``, and returns True to approve the call, False or the reason, a text for
                the model, to deny it. With ``async def`` it runs on the event loop of the model, else on a thread. A
                call is denied if it raises, or does not return in the time of ``[mcp] approval_timeout``.

        Raises:
            ConfigError: ``callback`` is no function.
        """
        self._tools = self._tools.with_approval(callback, type(self).__name__)
        return self

    def build(self) -> Model:
        """Load the models, and return when they serve. After an error or an interrupt, everything is freed.

        Raises:
            ConfigError: the description is invalid, or files are missing or unusable.
            InsufficientMemory: a model does not fit the memory budget even alone.
            ModelLoadFailed: a model could not be loaded.
        """
        from modelyard.inprocess.model import Model

        config = self.config()
        tools = self._checked_tools(config)
        with self._own_words():
            return Model(config, progress=self._progress, tools=tools)

    async def build_async(self) -> AsyncModel:
        """Load the models like ``build``, for the event loop of the caller: the AsyncModel works on that loop alone."""
        from modelyard.inprocess.async_model import AsyncModel

        config = self.config()
        model = AsyncModel(config, progress=self._progress, tools=self._checked_tools(config))
        with self._own_words():
            await model.start_with_tools()
        return model

    def _own_words(self) -> AbstractContextManager[None]:
        """Return a context in which errors about the description are worded for this builder."""
        return nullcontext()

    def _checked_tools(self, config: Config) -> ProgramTools:
        """Return the tools of each model.

        Raises:
            ConfigError: a model has two functions of one name.
        """
        tools = self._program_tools(config)
        tools.check([model.id for model in config.models], type(self).__name__)
        return tools

    def _program_tools(self, config: Config) -> ProgramTools:  # noqa: ARG002 (builders of single models use it)
        """Return the tools of each model; ``config`` is the description as a configuration."""
        return ProgramTools(self._tools)


class McpBuildable(Buildable):
    """A description of models with MCP servers, whose tools the models may call."""

    _mcp = McpSettings()

    def with_mcp_config(self, config: str | Path | Mapping[str, Any]) -> Self:
        """Add the MCP servers of a JSON file, whose tools the model calls while it answers.

        Args:
            config: path of the file, or a mapping in its shape: that of mistral.rs (``servers``), or the ``mcpServers``
                of other programs. ``${VAR}`` in it is a variable of the environment.

        Raises:
            ConfigError: the file cannot be read, or is in no known shape; the error lists every problem.
        """
        self._mcp = self._mcp.with_config(config, type(self).__name__)
        return self

    def with_mcp_server(self, name: str, **keys: Any) -> Self:
        """Add an MCP server, whose tools the model calls while it answers.

        Args:
            name: of the server; the names of its tools begin with it.
            keys: keys of ``[[mcp.servers]]``: ``command`` and ``args``, or ``url``, and others such as ``approval``.
        """
        self._mcp = self._mcp.with_server(name, keys)
        return self

    def with_max_tool_rounds(self, rounds: int) -> Self:
        """Set how often, in one answer, a model may call tools and go on with their results: 1 to 256."""
        self._mcp = replace(self._mcp, max_tool_rounds=rounds)
        return self
