"""``modelyard resolve``: shows which files a model is served from and the memory it needs, without loading it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from modelyard.cli.options import ModelOptions, one_model, takes_model_options


@takes_model_options(without=("cpu", "device_layers", "max_seqs", "chat_template"))
def resolve(
    model: Annotated[str, typer.Argument(metavar="PATH|ID", help="GGUF file, model folder, or Hugging Face id.")],
    *,
    options: ModelOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the files that a model is served from, the reasons, and the memory it needs. Downloads and loads nothing."""
    config = one_model(model, options)
    from rich.markup import escape

    from modelyard.yard.estimate import estimate_model

    forecast = estimate_model(config)
    if as_json:
        typer.echo(json.dumps(forecast.as_facts(), indent=2))
        return
    from modelyard.cli.tables import plain_table, size, table_console

    console = table_console()
    for reason in forecast.reasons:
        console.print(reason, markup=False)
    files = plain_table("File", "Size", "Where", right=("Size",), fold="File")
    for file in forecast.files:
        files.add_row(file.name, size(file.size_bytes), "here" if file.is_here else "to be downloaded")
    summary = plain_table("", "", fold="")
    summary.show_header = False
    memory = forecast.weights_bytes + forecast.context_bytes
    fits = "fits" if memory <= forecast.budget_bytes else "does not fit"
    for label, text in (
        ("From", forecast.origin + (f", commit {forecast.commit[:12]}" if forecast.commit else "")),
        ("Weights", forecast.quantization),
        ("Download", size(forecast.download_bytes) if forecast.download_bytes else "nothing"),
        ("Conversion", forecast.conversion or "none"),
        *([("Projector", forecast.projector)] if forecast.projector else []),
        (
            "Memory",
            f"{size(memory)} (weights {size(forecast.weights_bytes)}, context and buffers "
            f"{size(forecast.context_bytes)}), which {fits} the budget of {size(forecast.budget_bytes)}",
        ),
    ):
        summary.add_row(f"{label}:", text)
    for table in (files, summary):
        console.print()
        console.print(table, markup=False)
    for warning in forecast.warnings:
        console.print(f"\n[yellow]warning:[/] {escape(warning)}")
