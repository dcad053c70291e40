"""``modelyard quantize``: a model's weights as a GGUF file of another type."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.options import DtypeOption, ImatrixOption, ModelOption, TokenSourceOption, one_model
from modelyard.errors import UnusableModel


def quantize(
    model: ModelOption,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE|FOLDER", help="GGUF file to write, or a folder for it.")
    ],
    isq: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="Bits (2 to 8) or a type such as q4k. Unset: full precision.")
    ] = None,
    imatrix: ImatrixOption = None,
    dtype: DtypeOption = None,
    token_source: TokenSourceOption = None,
) -> None:
    """Convert a model to GGUF, quantised or in full precision."""
    original = Path(model).expanduser()
    if out.is_file() and original.is_file() and out.samefile(original):
        raise UnusableModel(f"{out} is the model itself, and would be lost. Choose another place with --out.")
    config = one_model(model, quant=None, isq=isq, imatrix=imatrix, dtype=dtype, kind=None, token_source=token_source)
    from rich.console import Console

    from modelyard.cli.preparing import prepare_visibly

    files = prepare_visibly(config, Console(stderr=True, soft_wrap=True, highlight=False))
    if len(files.paths) > 1:
        raise UnusableModel(
            f"'{model}' is {len(files.paths)} files of GGUF already. Copy them, or choose a type with --isq."
        )
    (source,) = files.paths
    target = out / source.name if out.is_dir() or not out.suffix else out
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
    typer.echo(f"{target}: {files.quantization}, {target.stat().st_size / 1e6:,.0f} MB")
