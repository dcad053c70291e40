"""``modelyard run``: chats with a model in the terminal, or asks it one question."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from modelyard.cli.client.completion import complete_first_model
from modelyard.cli.client.options import KeyFileOption, ModelOption, UrlOption
from modelyard.cli.exit_codes import FAILURE, INTERRUPTED, SERVER_CODES
from modelyard.cli.options import (
    MODEL_FORMS,
    ConfigOption,
    MaxToolRoundsOption,
    McpConfigOption,
    ModelOptions,
    one_model,
    takes_model_options,
    without_unset,
)
from modelyard.cli.run_names import RunNames, read_run_names
from modelyard.cli.setting_options import takes_settings
from modelyard.cli.usage import UsageError
from modelyard.errors import ModelyardError, ServerRefused, UnusableModel
from modelyard.system.typed_paths import expanded

if TYPE_CHECKING:
    from modelyard.cli.chat.connection import Connection
    from modelyard.cli.chat.conversation import Attachment
    from modelyard.cli.chat.terminal import Terminal
    from modelyard.config import Config

_MAX_SCHEMA_BYTES: Final = 2**20


@takes_model_options(without=("max_seqs",))
@takes_settings
def run(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL QUESTION",
            help=f"The model: its id on a running server, {MODEL_FORMS}; or a configuration that ends in .toml. "
            "Without a question, a chat begins.",
            show_default=False,
            autocompletion=complete_first_model,
        ),
    ] = None,
    model_option: ModelOption = None,
    config_option: ConfigOption = None,
    question: Annotated[
        str | None,
        typer.Option(
            "--input", "-i", metavar="TEXT", help="The question, as an option. Standard input is added to it."
        ),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="System prompt.")] = None,
    image: Annotated[
        list[Path] | None, typer.Option("--image", metavar="FILE", help="Ask about this image; can be repeated.")
    ] = None,
    audio: Annotated[
        list[Path] | None, typer.Option("--audio", metavar="FILE", help="Ask about this sound; can be repeated.")
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option("--schema", metavar="FILE", help="JSON schema that the answer to the question follows."),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with answer, reasoning, usage and timings.")
    ] = False,
    think: Annotated[
        bool | None, typer.Option("--think/--no-think", help="Whether the model thinks before it answers, if it can.")
    ] = None,
    hide_thinking: Annotated[
        bool, typer.Option("--hide-thinking", help="Show only how long the model thinks.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the speed of prompt and answer.")] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Load the model in this process, even if a running server has it.")
    ] = False,
    mcp_config: McpConfigOption = None,
    max_tool_rounds: MaxToolRoundsOption = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    *,
    settings: Mapping[str, Any],
    options: ModelOptions,
) -> None:
    """Chat with a model, or ask it one question.

    A running server that has the model answers, so that it takes no memory twice; else this process loads it.
    """
    if options.file_format == "json":
        raise UsageError(
            "--format is the format of the model's files. For answers in JSON, write --schema FILE, or /set format "
            "json in a chat."
        )
    named = read_run_names(words or [], model_option, config_option)
    config = None
    if named.config is not None:
        from modelyard.config import load_config

        config = load_config(named.config, without_unset(max_tool_rounds=max_tool_rounds), mcp_config)
        named = named.of_config([name for model in config.models for name in model.names])
    wished = _wished_options(options)
    tools = _ToolOptions(mcp_config, max_tool_rounds)
    if url is not None:
        for given in ("--local" if local else "", "--config" if named.config else "", *wished, *tools.given):
            if given:
                raise UsageError(f"--url names a server, and {given} is for a model of this process. Give one of them.")
    if named.question is not None and question is not None and named.question != question:
        raise UsageError(f"'{named.question}' and --input '{question}' are two questions. Leave one of them out.")
    question = named.question if question is None else question

    from modelyard.cli.chat.question import Question, ask, joined, piped_text
    from modelyard.cli.chat.session import Switches
    from modelyard.cli.chat.terminal import Terminal

    terminal = Terminal(os.environ)
    attachments = _attachments(image or [], audio or [])
    answer_schema = None if schema is None else _schema(schema)
    is_chat = question is None and _is_keyboard()
    if not _is_keyboard():
        question = joined(question, piped_text(sys.stdin.buffer, terminal))
        if not question:
            raise UsageError("There is no question: standard input is empty. A chat needs a terminal.")
    if is_chat and (json_output or schema is not None):
        raise UsageError(f"{'--json' if json_output else '--schema'} needs a question: modelyard run MODEL QUESTION")
    switches = Switches(settings, think, hides_reasoning=hide_thinking, is_verbose=verbose)
    try:
        with _connected(named, config, options, wished, tools, local, url, key_file, terminal) as connection:
            if is_chat:
                from modelyard.cli.chat.start import chat_on

                chat_on(connection, terminal, switches, system, attachments)
                return
            asked = Question(question or "", attachments, system, switches, answer_schema, json_output)
            try:
                code = ask(connection, asked, terminal)
            except ServerRefused as error:
                if not connection.is_own:
                    raise
                raise _OwnModelRefused(str(error), error.server_code) from error
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code:
        raise typer.Exit(code)


@dataclass(frozen=True, slots=True)
class _ToolOptions:
    """The options of the tools that models of this process may call; None where one is not given."""

    mcp_config: Path | None
    max_tool_rounds: int | None

    @property
    def given(self) -> list[str]:
        """Those that are given, as they are typed."""
        options = (("--mcp-config", self.mcp_config), ("--max-tool-rounds", self.max_tool_rounds))
        return [name for name, value in options if value is not None]

    @property
    def server(self) -> dict[str, Any]:
        """The keys of ``[server]`` that they give."""
        return without_unset(max_tool_rounds=self.max_tool_rounds)


class _OwnModelRefused(ModelyardError):
    """A model of this process refused a request, which no server did."""

    def __init__(self, message: str, refusal: str) -> None:
        super().__init__(message)
        self.exit_code = SERVER_CODES.get(refusal, FAILURE)


def _is_keyboard() -> bool:
    return sys.stdin.isatty()


def _wished_options(options: ModelOptions) -> list[str]:
    """Return the options that are given of those that decide how a model is loaded."""
    default = ModelOptions()
    given = [field.name for field in fields(options) if getattr(options, field.name) != getattr(default, field.name)]
    return ["--format" if name == "file_format" else f"--{name.replace('_', '-')}" for name in given]


def _connected(
    named: RunNames,
    config: Config | None,
    options: ModelOptions,
    wished: list[str],
    tools: _ToolOptions,
    local: bool,
    url: str | None,
    key_file: Path | None,
    terminal: Terminal,
) -> AbstractContextManager[Connection]:
    """Return the connection to the server that has the model, or to models of this process.

    Raises:
        UsageError: no model is named, and no server runs; or only a server can know the model, and an option is for one
            of this process.
        ConfigError, OptionError: an address, a key, a file or an option is invalid.
        ServerUnusable, ModelNotFound: the server that is named cannot be used, or no server has the model.
        UnusableModel: no server runs, and it is no file, folder or repository.
    """
    from modelyard.cli.chat.connection import own_connection, server_connection
    from modelyard.cli.client.find import problem_of, server_of_file, server_with_model
    from modelyard.config import mcp_config_path

    if config is not None:
        if wished:
            raise UsageError(f"{wished[0]} is for a model that the command line names, not for one of {named.config}.")
        model = _model_of(config, named.model)
        if not local and not tools.given and named.config is not None:
            address = server_of_file(named.config, model, os.environ, key_file)
            if address is not None and address.model is not None:
                return server_connection(address, address.model)
        return own_connection(config, model, terminal.notes)
    needs_own = "--local" if local else next(iter((*wished, *tools.given)), "")
    if not needs_own or (named.model is not None and problem_of(named.model)):
        address = server_with_model(named.model, url, os.environ, key_file)
        if address is not None and address.model is not None:
            if needs_own:
                raise UsageError(
                    f"{needs_own} is for a model of this process, and '{named.model}' is one of the server at "
                    f"{address.url}. Leave {needs_own} out, or name the model's file, folder or repository."
                )
            return server_connection(address, address.model)
        if named.model is not None and (problem := problem_of(named.model)):
            raise UnusableModel(
                f"No running server has a model '{named.model}', and as a model of this machine: {problem}"
            )
    if named.model is None:
        raise UsageError(
            "No model is given, and no running server has one. Write: modelyard run MODEL, such as ./model.gguf or "
            "org/name."
        )
    config = one_model(
        named.model, replace(options, max_seqs=1), server=tools.server, mcp_config=mcp_config_path(tools.mcp_config)
    )
    return _as_typed(own_connection(config, config.models[0].id, terminal.notes))


@contextmanager
def _as_typed(connection: AbstractContextManager[Connection]) -> Iterator[Connection]:
    """Enter a connection; what it fails with then names options instead of keys of a configuration."""
    from modelyard.cli.typed_names import options_as_typed

    with ExitStack() as stack:
        with options_as_typed():
            entered = stack.enter_context(connection)
        yield entered


def _model_of(config: Config, model: str | None) -> str:
    """Return the id of the model of a file that is meant, or its name with adapters.

    Raises:
        ModelNotFound: the file has none of that name.
    """
    from modelyard.config import default_model
    from modelyard.config.adapter import SEPARATOR, TOGETHER
    from modelyard.errors import ModelNotFound

    if model is None:
        return default_model(config) or config.models[0].id
    named = next((each.id for each in config.models if model in each.names), None)
    if named is None:
        base, _, adapters = model.rpartition(SEPARATOR)
        names = set(adapters.split(TOGETHER))
        # A model of this process answers for any of its names with adapters.
        named = next(
            (model for each in config.models if base in each.names and names <= {one.name for one in each.adapters}),
            None,
        )
    if named is None:
        raise ModelNotFound(model, tuple(each.id for each in config.models))
    return named


def _attachments(images: list[Path], clips: list[Path]) -> tuple[Attachment, ...]:
    """Read images and sound.

    Raises:
        InvalidRequest: a file cannot be read; no model was loaded.
    """
    from modelyard.cli.chat.attachments import read_media

    read = [read_media(str(expanded(path)), "image") for path in images]
    return (*read, *(read_media(str(expanded(path)), "audio") for path in clips))


def _schema(path: Path) -> dict[str, Any]:
    """Read a JSON schema.

    Raises:
        UsageError: it cannot be read, or is no JSON object.
    """
    try:
        with expanded(path).open("rb") as file:
            content = file.read(_MAX_SCHEMA_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--schema {path} cannot be read: {error.strerror}.") from error
    if len(content) > _MAX_SCHEMA_BYTES:
        raise UsageError(f"--schema {path} has more than 1 MiB, which is the limit.")
    try:
        schema = json.loads(content)
    except ValueError as error:
        raise UsageError(f"--schema {path} is no JSON: {error}.") from error
    except RecursionError:
        raise UsageError(f"--schema {path} nests too deep.") from None
    if not isinstance(schema, dict):
        raise UsageError(f"--schema {path} is no JSON schema: it must be an object.")
    return schema
