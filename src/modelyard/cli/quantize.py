"""``modelyard quantize``: writes a model's weights as a UQFF export or a GGUF file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.model_names import one_model_name
from modelyard.cli.options import (
    DtypeOption,
    ImatrixOption,
    ModelArgument,
    ModelOption,
    ModelOptions,
    TokenSourceOption,
    one_model,
)
from modelyard.cli.usage import UsageError
from modelyard.errors import UnusableModel
from modelyard.system.quantities import size_text
from modelyard.system.typed_paths import expanded, is_file, is_folder

if TYPE_CHECKING:
    from modelyard.config import Config

_GGUF, _UQFF = "gguf", "uqff"


def quantize(
    name: ModelArgument = None,
    model: ModelOption = None,
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="NAME.gguf|NAME.uqff|FOLDER",
            help="Output: a GGUF file, a UQFF folder, or a UQFF file for a single type.",
        ),
    ],
    isq: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LEVEL",
            help="Bits (2 to 8) or a type such as q4k; several for UQFF: --isq q4k,afq4. Without it, GGUF keeps the "
            "precision of the weights.",
        ),
    ] = None,
    imatrix: ImatrixOption = None,
    dtype: DtypeOption = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="gguf|uqff", help="Format of the output in a folder. [dim]\\[default: uqff][/]"
        ),
    ] = None,
    readme: Annotated[bool, typer.Option("--readme/--no-readme", help="Write a README.md into a UQFF folder.")] = True,
    uqff_base_model: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Repository of the original model, for README and report.")
    ] = None,
    uqff_repo_id: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="Repository where UQFF will be published, for README and report."),
    ] = None,
    token_source: TokenSourceOption = None,
) -> None:
    """Quantise a model to a UQFF folder, or to a GGUF file and a second file for its projector, if it has one."""
    from modelyard.cli.typed_names import options_as_typed

    source = one_model_name(name, model, command="quantize")
    output_format = _output_format(out, format_)
    levels = [word.strip() for level in isq or [] for word in level.split(",")]
    if output_format == _GGUF and len(levels) > 1:
        raise UsageError(f"A GGUF file has one type, not {len(levels)}. Call the command once for each of them.")
    options = ModelOptions(isq=levels[0] if levels else None, imatrix=imatrix, dtype=dtype, token_source=token_source)
    with options_as_typed():
        config = one_model(source, options)
        if output_format == _GGUF:
            _write_gguf(config, source, out)
        else:
            _write_uqff(config, levels, out, readme, uqff_base_model, uqff_repo_id)


def _output_format(out: Path, format_: str | None) -> str:
    by_suffix = {".gguf": _GGUF, ".uqff": _UQFF}.get(out.suffix.lower())
    if format_ not in (None, _GGUF, _UQFF):
        raise UsageError(f"--format must be gguf or uqff, not '{format_}'.")
    if format_ is not None and by_suffix not in (None, format_):
        raise UsageError(f"--out {out} ends like {by_suffix}, but --format is {format_}. Leave one of them out.")
    return format_ or by_suffix or _UQFF


def _write_gguf(config: Config, model: str, out: Path) -> None:
    original = expanded(model)
    if is_file(out) and is_file(original) and out.samefile(original):
        raise UsageError(f"{out} is the model itself, and would be lost. Choose another place with --out.")
    from rich.console import Console

    from modelyard.cli.preparing import prepare_visibly

    files = prepare_visibly(config, Console(stderr=True, soft_wrap=True, highlight=False))
    if len(files.paths) > 1:
        raise UnusableModel(
            f"'{model}' is {len(files.paths)} files of GGUF already. Copy them, or choose a type with --isq."
        )
    (source,) = files.paths
    target = out / source.name if is_folder(out) or not out.suffix else out
    _copy(source, target)
    typer.echo(f"{target}: {files.quantization}, {size_text(target.stat().st_size)}")
    if files.projector is not None:
        # A projector is recognised as the model's by its name.
        projector = target.with_name(f"mmproj-{target.stem}-{_precision(files.projector)}.gguf")
        _copy(files.projector, projector)
        typer.echo(f"{projector}: its projector, {size_text(projector.stat().st_size)}")


def _precision(projector: Path) -> str:
    from modelyard.hub import read_header

    return read_header(projector).quantization


def _copy(source: Path, target: Path) -> None:
    """Copy a file to ``target``, which gets its name when it is complete."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UnusableModel(
            f"{target} cannot be written: {error.strerror}. Choose another place with --out."
        ) from error


def _write_uqff(
    config: Config, levels: list[str], out: Path, readme: bool, base_model: str | None, repo_id: str | None
) -> None:
    from rich.console import Console

    from modelyard.cli.preparing import progress_bar
    from modelyard.hub import FileRequest, UqffExport, export_uqff, parse_types
    from modelyard.yard.from_config import stores_of

    types = parse_types(levels)
    is_file = out.suffix.lower() == ".uqff"
    if is_file and len(types) > 1:
        raise UsageError(f"{out} is a name for one type, not for {len(types)}. Name a folder for all of them.")
    (model,) = config.models
    if model.reference.quant is not None or model.reference.file is not None:
        raise UsageError(f"UQFF is made from full precision. Name the repository alone: {model.source}")
    export = UqffExport(
        types,
        (out.parent if is_file else out).absolute(),
        stem=out.stem if is_file else None,
        has_card=readme and not is_file,
        base_model=base_model,
        repo_id=repo_id,
    )
    request = FileRequest(model.source, kind=model.kind, dtype=model.dtype, imatrix=model.quantization.imatrix)
    with progress_bar(Console(stderr=True, soft_wrap=True, highlight=False)) as show:
        shards = export_uqff(request, export, stores_of(config), show)
    for shard in shards:
        typer.echo(f"{shard}: {size_text(shard.stat().st_size)}")
