"""``modelyard resolve``: shows which files a model is served from and the memory it needs, without loading it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.model_names import is_config, one_model_name, read_names
from modelyard.cli.options import (
    ConfigOption,
    ModelArgument,
    ModelOption,
    ModelOptions,
    one_model,
    takes_model_options,
)

if TYPE_CHECKING:
    from rich.console import Console

    from modelyard.yard.estimate import ModelEstimate


@takes_model_options(without=("max_seqs", "chat_template"))
def resolve(
    name: ModelArgument = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    *,
    options: ModelOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the files that a model is served from, the reasons, and the memory it needs.

    Nothing is downloaded or loaded. Of a configuration, each model is shown.
    """
    if config is None and not (name is not None and is_config(name)):
        show_estimate(one_model_name(name, model, command="resolve"), options, as_json=as_json)
        return
    from modelyard.cli.tables import table_console

    estimates = _of_file(name, model, config, options)
    if as_json:
        typer.echo(json.dumps([estimate.as_facts() for estimate in estimates], indent=2))
        return
    console = table_console()
    for number, estimate in enumerate(estimates):
        if len(estimates) > 1:
            console.print(f"{chr(10) if number else ''}{estimate.source}", style="bold", markup=False)
        _show(console, estimate)


def show_estimate(name: str, options: ModelOptions, *, as_json: bool) -> None:
    """Print the files that a model would be served from on this machine, and the memory it needs.

    Raises:
        ModelyardError: there is no such model, or it cannot be served; the message says why.
    """
    from modelyard.cli.tables import table_console
    from modelyard.cli.typed_names import options_as_typed
    from modelyard.yard.estimate import estimate_models

    with options_as_typed():
        (estimate,) = estimate_models(one_model(name, options))
    if as_json:
        typer.echo(json.dumps(estimate.as_facts(), indent=2))
    else:
        _show(table_console(), estimate)


def _of_file(name: str | None, model: str | None, config: Any, options: ModelOptions) -> list[ModelEstimate]:
    from modelyard.cli.served_models import refuse_model_options
    from modelyard.config import load_config
    from modelyard.yard.estimate import estimate_models

    named = read_names([name] if name else [], [model] if model else [], config, command="resolve")
    assert named.config is not None
    refuse_model_options(options, named.config)
    return estimate_models(load_config(named.config))


def _show(console: Console, estimate: ModelEstimate) -> None:
    from rich.markup import escape

    from modelyard.cli.tables import print_table, size

    for reason in estimate.reasons:
        console.print(reason, markup=False)
    console.print()
    rows = [
        (file.name, size(file.size_bytes), "here" if file.is_here else "to be downloaded") for file in estimate.files
    ]
    print_table(console, ("File", "Size", "Where"), rows, right=("Size",))
    memory = estimate.weights_bytes + estimate.context_bytes
    fits = "fits" if memory <= estimate.budget_bytes else "does not fit"
    of_host = " of the host" if estimate.devices else ""
    console.print()
    print_table(
        console,
        ("", ""),
        [
            ("From:", estimate.origin + (f", commit {estimate.commit[:12]}" if estimate.commit else "")),
            ("Weights:", estimate.quantization),
            ("Download:", size(estimate.download_bytes) if estimate.download_bytes else "nothing"),
            ("Conversion:", estimate.conversion or "none"),
            *([("Projector:", estimate.projector)] if estimate.projector else []),
            ("Context:", f"{estimate.context_length:,} tokens: {estimate.context_reason}"),
            *([("On:", estimate.placement)] if estimate.devices else []),
            (
                "Memory:",
                f"{size(memory)}{of_host} (weights {size(estimate.weights_bytes)}, context and buffers "
                f"{size(estimate.context_bytes)}), which {fits} the budget of {size(estimate.budget_bytes)}",
            ),
        ],
        prose=True,
    )
    if estimate.devices:
        console.print()
        sizes = ("Weights", "KV cache", "Buffers", "Together", "Free", "Budget")
        print_table(
            console,
            ("Device", *sizes),
            [
                (
                    each.name,
                    *map(size, (each.weights_bytes, each.kv_bytes, each.buffer_bytes, each.total_bytes)),
                    size(each.free_bytes),
                    "the host's" if each.budget_bytes is None else size(each.budget_bytes),
                )
                for each in estimate.devices
            ],
            right=sizes,
        )
        console.print("As llama.cpp plans it." if estimate.devices_are_planned else "As predicted from the header.")
    if estimate.devices and not estimate.is_fitting:
        console.print("It does not fit the budgets in any placement; this is the fastest one.")
    for warning in estimate.warnings:
        console.print(f"\n[yellow]warning:[/] {escape(warning)}")
