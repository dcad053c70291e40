"""Command-line options that several commands share. They have no defaults of their own: the schema has the defaults."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from modelyard.cli.device_options import DEVICE, DeviceOptions, device_keys
from modelyard.cli.grouped_options import with_options

if TYPE_CHECKING:
    from modelyard.config import Config

MODEL_FORMS: Final = (
    "a GGUF file, a folder, a Hugging Face id with or without a quantisation (org/name:Q4_K_M), a URL of the hub, or "
    "ollama:NAME"
)
ModelArgument = Annotated[
    str | None, typer.Argument(metavar="MODEL", help=f"The model: {MODEL_FORMS}.", show_default=False)
]
ModelOption = Annotated[str | None, typer.Option("--model", "-m", metavar="MODEL", help="The model, as an option.")]
ModelsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL",
        help=f"Models, each {MODEL_FORMS}; or a configuration that ends in .toml.",
        show_default=False,
    ),
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", metavar="MODEL", help="A model, as an option; can be repeated."),
]
ConfigArgument = Annotated[
    Path | None, typer.Argument(metavar="TOML", help="The configuration file.", show_default=False)
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-f", metavar="TOML", help="The configuration file, as an option.")
]
WEIGHTS: Final = "Options of the weights"
HostOption = Annotated[
    str | None,
    typer.Option(
        "--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 is all. [dim]\\[default: 127.0.0.1][/]"
    ),
]
PortOption = Annotated[
    int | None, typer.Option("--port", "-p", metavar="PORT", help="Port to listen on. [dim]\\[default: 1234][/]")
]
McpConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--mcp-config",
        metavar="FILE",
        help="JSON file with the MCP servers whose tools models may call. [dim]\\[default: MCP_CONFIG_PATH][/]",
    ),
]
McpPortOption = Annotated[
    int | None,
    typer.Option("--mcp-port", metavar="PORT", help="Port of a second listener, on which Modelyard is an MCP server."),
]
MaxToolRoundsOption = Annotated[
    int | None,
    typer.Option(
        "--max-tool-rounds",
        metavar="N",
        help="How often a model may call tools of the server in one answer. [dim]\\[default: 32][/]",
    ),
]
AllowedHostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-host",
        metavar="NAME",
        help="Name by which clients address the server, such as a container's; can be repeated.",
    ),
]
NoSupervisorOption = Annotated[
    bool,
    typer.Option(
        "--no-supervisor", help="Run without the supervisor, the parent process that restarts a crashed server."
    ),
]
DiscoverOption = Annotated[
    bool,
    typer.Option(
        "--discover",
        help="Serve the models of other programs, too: of the Hugging Face cache, Ollama, LM Studio, llama.cpp and "
        "GPT4All, each loaded when it is first asked for.",
    ),
]
MaxSeqsOption = Annotated[
    int | None,
    typer.Option(
        "--max-seqs",
        metavar="N",
        help="Requests that the model computes at the same time. [dim]\\[default: 32][/]",
        rich_help_panel=DEVICE,
    ),
]
CtxOption = Annotated[
    str | None,
    typer.Option(
        "--ctx",
        metavar="TOKENS",
        help="Context length, such as 8192 or 8k; auto: all that the model was trained on, as far as it fits. "
        "[dim]\\[default: the model's training context, at most 8192][/]",
        rich_help_panel=DEVICE,
    ),
]
QuantOption = Annotated[
    str | None,
    typer.Option(
        metavar="LEVEL",
        help="Bits (2 to 8) or a type such as q4_k_m: use a published file, else quantise on this machine. auto: the "
        "most bits that fit.",
        rich_help_panel=WEIGHTS,
    ),
]
IsqOption = Annotated[
    str | None,
    typer.Option(
        metavar="LEVEL", help="Quantise on this machine: bits (2 to 8) or a type such as q4k.", rich_help_panel=WEIGHTS
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="Format of the files to use: gguf, or plain for safetensors.",
        rich_help_panel=WEIGHTS,
    ),
]
QuantizedFileOption = Annotated[
    str | None,
    typer.Option(
        "--quantized-file",
        metavar="NAME",
        help="GGUF file of the folder or repository to use, instead of --quant.",
        rich_help_panel=WEIGHTS,
    ),
]
MmprojOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="GGUF file of the projector, which encodes images or sound for the model.",
        rich_help_panel=WEIGHTS,
    ),
]
FromUqffOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="UQFF weights of the folder or repository to use: a file, a type such as q4k, or bits.",
        rich_help_panel=WEIGHTS,
    ),
]
ImatrixOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Importance matrix for quantisation on this machine.", rich_help_panel=WEIGHTS),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE", help="Type of the weights that are not quantised: bf16, f16 or f32.", rich_help_panel=WEIGHTS
    ),
]
KindOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND", help="text, embedding, rerank or multimodal. [dim]\\[default: determined from the files][/]"
    ),
]
TokenSourceOption = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="Source of the hub's token: cache, env:NAME, path:FILE, literal:TOKEN, none."),
]
TemplateOption = Annotated[
    Path | None, typer.Option("--chat-template", "-c", metavar="FILE", help="Jinja file to use as the chat template.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions(DeviceOptions):
    """The options of a command's model. None, or False for switches, where an option is not given."""

    max_seqs: MaxSeqsOption = None
    ctx: CtxOption = None
    quant: QuantOption = None
    isq: IsqOption = None
    file_format: FormatOption = None
    quantized_file: QuantizedFileOption = None
    mmproj: MmprojOption = None
    from_uqff: FromUqffOption = None
    imatrix: ImatrixOption = None
    dtype: DtypeOption = None
    kind: KindOption = None
    token_source: TokenSourceOption = None
    chat_template: TemplateOption = None


def takes_model_options(*, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator for commands with a parameter ``options: ModelOptions``, which offer an option for each field.

    Args:
        without: fields that the command does not offer.
    """
    hints = get_type_hints(ModelOptions, include_extras=True)
    offered = [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in fields(ModelOptions)
        if field.name not in without
    ]
    return lambda command: with_options(command, "options", offered, lambda given: ModelOptions(**given))


def without_unset(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def server_keys(
    host: str | None,
    port: int | None,
    allowed_hosts: list[str] | None,
    mcp_port: int | None,
    max_tool_rounds: int | None,
) -> dict[str, Any]:
    """Return the keys of ``[server]`` that the options of a server give."""
    return without_unset(
        host=host,
        port=port,
        allowed_hosts=allowed_hosts or None,
        mcp_port=mcp_port,
        max_tool_rounds=max_tool_rounds,
    )


def one_model(
    model: str,
    options: ModelOptions,
    *,
    server: Mapping[str, Any] | None = None,
    mcp_config: Path | None = None,
) -> Config:
    """Return the configuration of a command that names a single model, in a form of ``parse_model_reference``.

    Raises:
        OptionError: the value of an option is invalid, or Ollama's store does not have the model.
    """
    return models_config([model_table(model, options)], options, server=server, mcp_config=mcp_config)


def models_config(
    tables: Sequence[Mapping[str, Any]],
    options: ModelOptions,
    *,
    server: Mapping[str, Any] | None = None,
    mcp_config: Path | None = None,
    discovers: bool = False,
) -> Config:
    """Return the configuration of models that are named on the command line; the first is the default.

    Args:
        tables: of ``model_table``.
        options: those of all models.
        server: keys of ``[server]``.
        mcp_config: JSON file with MCP servers; None: there is none.
        discovers: whether models are looked for on this machine.

    Raises:
        OptionError: the value of an option is invalid; the error lists every problem.
    """
    from modelyard.cli.typed_names import options_as_typed
    from modelyard.config import validate_config

    mcp_file = None if mcp_config is None else str(mcp_config)
    with options_as_typed():
        return validate_config(
            {
                **({"default_model_id": tables[0]["model_id"]} if len(tables) > 1 else {}),
                "models": list(tables),
                "discover": {"stores": ["all"] if discovers else []},
                "server": dict(server or {}),
                "runtime": without_unset(max_seqs=options.max_seqs, mcp_config=mcp_file),
                "hub": without_unset(token_source=options.token_source),
            },
            source="command line",
            base=Path.cwd(),
        )


def model_table(model: str, options: ModelOptions) -> dict[str, Any]:
    """Return the ``[[models]]`` table of a model on the command line.

    A model of Ollama has the sampling defaults and the context length that its parameters give.

    Raises:
        OptionError: Ollama's store does not have the model.
    """
    sampling, context = _parameters_of(model)
    return {
        **without_unset(
            model_id=model,
            kind=options.kind,
            dtype=options.dtype,
            chat_template=None if options.chat_template is None else str(options.chat_template),
        ),
        "format": without_unset(
            format=options.file_format, quantized_file=options.quantized_file, mmproj=options.mmproj
        ),
        "device": without_unset(
            **device_keys(options),
            max_seq_len=context if options.ctx is None else _tokens(options.ctx),
        ),
        "quantization": without_unset(
            quant=options.quant,
            isq=options.isq,
            from_uqff=options.from_uqff,
            imatrix=None if options.imatrix is None else str(options.imatrix),
        ),
        "sampling": sampling,
    }


def _parameters_of(model: str) -> tuple[dict[str, Any], int | None]:
    """Return the sampling defaults and the context length of a model of Ollama; neither for another model."""
    from modelyard.cli.typed_names import options_as_typed
    from modelyard.config.model_reference import parse_model_reference
    from modelyard.hub.sources.ollama_parameters import context_length, sampling_keys
    from modelyard.hub.sources.ollama_store import read_ollama_model

    reference = parse_model_reference(model)
    if reference.kind != "ollama":
        return {}, None
    with options_as_typed():
        parameters = read_ollama_model(reference.source).parameters
    return sampling_keys(parameters), context_length(parameters)


def _tokens(text: str) -> int | str:
    """Return the value of --ctx in the form of the configuration's ``max_seq_len``: a number, or text with a unit."""
    return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII) else text
