"""``modelyard resolve``: what a model would be served from, and what it would take, without doing any of it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from modelyard.cli.options import (
    CtxOption,
    DtypeOption,
    FromUqffOption,
    ImatrixOption,
    IsqOption,
    KindOption,
    QuantOption,
    TokenSourceOption,
    one_model,
)


def resolve(
    model: Annotated[str, typer.Argument(metavar="PATH|ID", help="GGUF file, model folder, or Hugging Face id.")],
    quant: QuantOption = None,
    isq: IsqOption = None,
    from_uqff: FromUqffOption = None,
    imatrix: ImatrixOption = None,
    dtype: DtypeOption = None,
    kind: KindOption = None,
    ctx: CtxOption = None,
    token_source: TokenSourceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say which files a model is served from, why, and how much memory it takes. Downloads and loads nothing."""
    config = one_model(
        model,
        ctx=ctx,
        quant=quant,
        isq=isq,
        from_uqff=from_uqff,
        imatrix=imatrix,
        dtype=dtype,
        kind=kind,
        token_source=token_source,
    )
    from rich.console import Console
    from rich.table import Table

    from modelyard.yard.forecast import foresee

    forecast = foresee(config)
    if as_json:
        typer.echo(json.dumps(forecast.as_facts(), indent=2))
        return
    console = Console(soft_wrap=True, highlight=False)
    for reason in forecast.reasons:
        console.print(reason, markup=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("File", no_wrap=True)
    table.add_column("Size", justify="right", no_wrap=True)
    table.add_column("Where", no_wrap=True)
    for file in forecast.files:
        table.add_row(file.name, megabytes(file.size_bytes), "here" if file.is_here else "to be downloaded")
    console.print()
    console.print(table)
    console.print()
    for label, text in forecast.summary():
        console.print(f"{label + ':':<13}{text}", markup=False)


def megabytes(count: int | None) -> str:
    """Bytes for people; "?" where they are not known."""
    return "?" if count is None else f"{count / 1e6:,.0f} MB" if count >= 5e5 else f"{count / 1e3:,.0f} kB"
