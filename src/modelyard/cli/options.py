"""The options that several commands share. They have no defaults of their own: unset means what the schema says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
        help="Name by which clients may address the server, such as that of a container; may be given again.",
    ),
]
NoSupervisorOption = Annotated[
    bool,
    typer.Option("--no-supervisor", help="Run without the parent process that starts the server again when it dies."),
]
CpuOption = Annotated[bool, typer.Option("--cpu", help="Use the CPU alone, even where an accelerator is there.")]
DeviceLayersOption = Annotated[
    str | None,
    typer.Option(
        "--device-layers", "-n", metavar="LAYERS", help="Layers on the accelerator, or by device: 0:20;1:12. Untested."
    ),
]
MaxSeqsOption = Annotated[
    int | None, typer.Option(help="Requests that run at once on the model. [dim]\\[default: 32][/]")
]
CtxOption = Annotated[
    int | None,
    typer.Option(
        "--ctx",
        metavar="TOKENS",
        help="Context length. [dim]\\[default: what the model was trained on, at most 8192][/]",
    ),
]
QuantOption = Annotated[
    str | None,
    typer.Option(
        metavar="LEVEL",
        help="Bits (2 to 8) or a type such as q4_k_m: a published file of it, else quantised here. auto: what fits.",
    ),
]
IsqOption = Annotated[
    str | None, typer.Option(metavar="LEVEL", help="Quantise here, at load time: bits (2 to 8) or a type such as q4k.")
]
FormatOption = Annotated[
    str | None, typer.Option("--format", metavar="FORMAT", help="Which files count: gguf, or plain for safetensors.")
]
QuantizedFileOption = Annotated[
    str | None,
    typer.Option(
        "--quantized-file", "-f", metavar="NAME", help="GGUF file of the folder or repository, instead of --quant."
    ),
]
MmprojOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="GGUF file with the projector, by which the model sees or hears.")
]
FromUqffOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="UQFF weights of the folder or repository: a file, a type such as q4k, or bits."),
]
ImatrixOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Which weights matter most, for quantisation here.")
]
DtypeOption = Annotated[
    str | None, typer.Option(metavar="TYPE", help="Numbers of weights that are not quantised: bf16, f16 or f32.")
]
KindOption = Annotated[
    str | None, typer.Option(metavar="KIND", help="What the model does. [dim]\\[default: told from its files][/]")
]
TokenSourceOption = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="Where the hub's token is: cache, env:NAME, path:FILE, literal:TOKEN, none."),
]
TemplateOption = Annotated[
    Path | None, typer.Option("--chat-template", "-c", metavar="FILE", help="Jinja file to use as chat template.")
]


def without_unset(**values: Any) -> dict[str, Any]:
    """The values that were given."""
    return {key: value for key, value in values.items() if value is not None}


def one_model(
    model: str,
    *,
    cpu: bool = False,
    device_layers: str | None = None,
    max_seqs: int | None = None,
    ctx: int | None = None,
    quant: str | None,
    isq: str | None,
    from_uqff: str | None = None,
    imatrix: Path | None,
    file_format: str | None = None,
    quantized_file: str | None = None,
    mmproj: str | None = None,
    dtype: str | None,
    kind: str | None,
    token_source: str | None,
    chat_template: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    allowed_hosts: list[str] | None = None,
) -> Config:
    """The configuration of a command that names a single model.

    A file or folder is listed by its name, without the way to it.

    Raises:
        ConfigError: an option has no usable value.
    """
    path = Path(model).expanduser()
    alias = (path.stem if path.is_file() else path.resolve().name) if path.exists() else None
    entry = without_unset(
        model_id=model,
        alias=alias,
        kind=kind,
        dtype=dtype,
        chat_template=None if chat_template is None else str(chat_template),
        format=without_unset(format=file_format, quantized_file=quantized_file, mmproj=mmproj),
        device=without_unset(cpu=cpu or None, device_layers=_layers(device_layers), max_seq_len=ctx),
        quantization=without_unset(
            quant=quant, isq=isq, from_uqff=from_uqff, imatrix=None if imatrix is None else str(imatrix)
        ),
    )
    return validate_config(
        {
            "models": [entry],
            "server": without_unset(host=host, port=port, allowed_hosts=allowed_hosts or None),
            "runtime": without_unset(max_seqs=max_seqs),
            "hub": without_unset(token_source=token_source),
        },
        source="command line",
        base=Path.cwd(),
    )


def _layers(written: str | None) -> int | list[str] | None:
    """As the configuration file would have it."""
    if written is None:
        return None
    return int(written) if written.isdecimal() else written.split(";")
