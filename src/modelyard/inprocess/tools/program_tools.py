"""Which functions of a program its models may call, and who approves the calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelyard.errors import ConfigError, InvalidRequest
from modelyard.inprocess.tools.approval import ApprovalCallback
from modelyard.inprocess.tools.function_tool import FunctionTool, to_function_tool


@dataclass(frozen=True, slots=True)
class ModelTools:
    """What a builder says of tools.

    Attributes:
        functions: that models may call.
        approve: is asked before each call of a tool, of any source; None: nobody is.
    """

    functions: tuple[FunctionTool, ...] = ()
    approve: ApprovalCallback | None = None

    def with_functions(self, functions: object, source: str) -> ModelTools:
        """Return these, with more functions.

        Raises:
            ConfigError: they are no list of functions, or no tools can be made of some; the error lists every problem.
        """
        if not isinstance(functions, Iterable) or isinstance(functions, str | bytes | Mapping):
            raise ConfigError(source, [f"with_tools takes a list of functions, not {functions!r}."])
        added: list[FunctionTool] = []
        problems: list[str] = []
        for function in functions:
            try:
                added.append(to_function_tool(function))
            except InvalidRequest as unsuitable:
                problems.append(str(unsuitable))
        if problems:
            raise ConfigError(source, problems)
        return replace(self, functions=(*self.functions, *added))

    def with_approval(self, callback: object, source: str) -> ModelTools:
        """Return these, with who approves calls.

        Raises:
            ConfigError: ``callback`` is no function.
        """
        if not callable(callback):
            raise ConfigError(source, [f"with_tool_approval takes a function, not {callback!r}."])
        return replace(self, approve=callback)


@dataclass(frozen=True, slots=True)
class ProgramTools:
    """The tools of all models.

    Attributes:
        for_all: of every model.
        of_models: further ones, by the id of their model.
    """

    for_all: ModelTools = ModelTools()
    of_models: Mapping[str, ModelTools] = field(default_factory=dict)

    def functions(self, model: str) -> tuple[FunctionTool, ...]:
        """Return the functions that a model, by id, may call."""
        own = self.of_models.get(model)
        return self.for_all.functions if own is None else (*own.functions, *self.for_all.functions)

    def approve(self, model: str) -> ApprovalCallback | None:
        """Return what is asked before each call that a model, by id, makes; None: nothing is."""
        own = self.of_models.get(model)
        return self.for_all.approve if own is None or own.approve is None else own.approve

    def with_model(self, model: str, tools: ModelTools) -> ProgramTools:
        """Return these, with the tools of another model."""
        return ProgramTools(self.for_all, {**self.of_models, model: tools})

    def without_model(self, model: str) -> ProgramTools:
        """Return these, without those of one model."""
        return ProgramTools(self.for_all, {name: tools for name, tools in self.of_models.items() if name != model})

    def check(self, models: Iterable[str], source: str) -> None:
        """Refuse functions of one name, of which a model could call only one.

        Raises:
            ConfigError: a model has two functions of one name; the error lists every problem.
        """
        problems = dict.fromkeys(
            f"Two tools are named '{name}'. Name one of them otherwise: FunctionTool(function, name='…')."
            for model in models
            for name in twice([tool.name for tool in self.functions(model)])
        )
        if problems:
            raise ConfigError(source, list(problems))


def twice(names: Sequence[Any]) -> Iterator[Any]:
    """Yield each name that stands in ``names`` more than once."""
    return (name for index, name in enumerate(names) if names.index(name) < index)
