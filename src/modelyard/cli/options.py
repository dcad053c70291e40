"""Command-line options that several commands share. They have no defaults of their own: the schema has the defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

import typer

from modelyard.config import Config, validate_config

ModelOption = Annotated[
    str, typer.Option("--model", "-m", metavar="PATH|ID", help="GGUF file, model folder, or Hugging Face id.")
]
HostOption = Annotated[str | None, typer.Option(help="Address to listen on. [dim]\\[default: 127.0.0.1][/]")]
PortOption = Annotated[int | None, typer.Option(help="Port to listen on. [dim]\\[default: 1234][/]")]
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
CpuOption = Annotated[bool, typer.Option("--cpu", help="Use only the CPU, even if there is an accelerator.")]
DeviceLayersOption = Annotated[
    str | None,
    typer.Option(
        "--device-layers",
        "-n",
        metavar="LAYERS",
        help="Number of layers on the accelerator, or on each device: 0:20;1:12. Untested.",
    ),
]
MaxSeqsOption = Annotated[
    int | None, typer.Option(help="Requests that the model computes at the same time. [dim]\\[default: 32][/]")
]
CtxOption = Annotated[
    int | None,
    typer.Option(
        "--ctx",
        metavar="TOKENS",
        help="Context length. [dim]\\[default: the model's training context, at most 8192][/]",
    ),
]
QuantOption = Annotated[
    str | None,
    typer.Option(
        metavar="LEVEL",
        help="Bits (2 to 8) or a type such as q4_k_m: use a published file, else quantise on this machine. auto: the "
        "most bits that fit.",
    ),
]
IsqOption = Annotated[
    str | None, typer.Option(metavar="LEVEL", help="Quantise on this machine: bits (2 to 8) or a type such as q4k.")
]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", metavar="FORMAT", help="Format of the files to use: gguf, or plain for safetensors."),
]
QuantizedFileOption = Annotated[
    str | None,
    typer.Option(
        "--quantized-file",
        "-f",
        metavar="NAME",
        help="GGUF file of the folder or repository to use, instead of --quant.",
    ),
]
MmprojOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="GGUF file of the projector, which encodes images or sound for the model."),
]
FromUqffOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="UQFF weights of the folder or repository to use: a file, a type such as q4k, or bits."
    ),
]
ImatrixOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Importance matrix for quantisation on this machine.")
]
DtypeOption = Annotated[
    str | None, typer.Option(metavar="TYPE", help="Type of the weights that are not quantised: bf16, f16 or f32.")
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
class ModelOptions:
    """The options of a command's model. None, or False for ``cpu``, where an option is not given."""

    cpu: CpuOption = False
    device_layers: DeviceLayersOption = None
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


_EXPANDED: Final = "options"


def takes_model_options(*, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator for commands with a parameter ``options: ModelOptions``.

    typer makes one command-line option of each parameter, so the decorator replaces that parameter by one for each
    field of ModelOptions.

    Args:
        without: fields that the command does not offer.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(ModelOptions, include_extras=True)
        offered = [field for field in fields(ModelOptions) if field.name not in without]

        @wraps(command)
        def run(**values: Any) -> None:
            options = ModelOptions(**{field.name: values.pop(field.name) for field in offered})
            command(**values, **{_EXPANDED: options})

        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            if parameter.name == _EXPANDED:
                parameters += [
                    parameter.replace(name=field.name, default=field.default, annotation=hints[field.name])
                    for field in offered
                ]
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def without_unset(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def one_model(
    model: str,
    options: ModelOptions,
    *,
    host: str | None = None,
    port: int | None = None,
    allowed_hosts: list[str] | None = None,
) -> Config:
    """Return the configuration of a command that names a single model.

    The id of a model at a path is its file's or folder's name, without the rest of the path.

    Raises:
        ConfigError: the value of an option is invalid.
    """
    path = Path(model).expanduser()
    alias = (path.stem if path.is_file() else path.resolve().name) if path.exists() else None
    entry = without_unset(
        model_id=model,
        alias=alias,
        kind=options.kind,
        dtype=options.dtype,
        chat_template=None if options.chat_template is None else str(options.chat_template),
        format=without_unset(format=options.file_format, quantized_file=options.quantized_file, mmproj=options.mmproj),
        device=without_unset(
            cpu=options.cpu or None, device_layers=_layers(options.device_layers), max_seq_len=options.ctx
        ),
        quantization=without_unset(
            quant=options.quant,
            isq=options.isq,
            from_uqff=options.from_uqff,
            imatrix=None if options.imatrix is None else str(options.imatrix),
        ),
    )
    return validate_config(
        {
            "models": [entry],
            "server": without_unset(host=host, port=port, allowed_hosts=allowed_hosts or None),
            "runtime": without_unset(max_seqs=options.max_seqs),
            "hub": without_unset(token_source=options.token_source),
        },
        source="command line",
        base=Path.cwd(),
    )


def _layers(text: str | None) -> int | list[str] | None:
    """Return the value of --device-layers in the form of the configuration's ``device_layers``."""
    if text is None:
        return None
    return int(text) if text.isdecimal() else text.split(";")
