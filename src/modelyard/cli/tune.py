"""``modelyard tune``: shows what each quantisation of a model takes and gives on this machine, and recommends one."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.exit_codes import MEMORY
from modelyard.cli.model_names import one_model_name
from modelyard.cli.options import ModelArgument, ModelOption, ModelOptions, one_model, takes_model_options

if TYPE_CHECKING:
    from modelyard.yard.tuning import TunedType, Tuning


class Profile(StrEnum):
    """What counts for the recommendation."""

    QUALITY = "quality"
    BALANCED = "balanced"
    FAST = "fast"


@takes_model_options(without=("max_seqs", "chat_template", "quant", "isq"))
def tune(
    name: ModelArgument = None,
    model: ModelOption = None,
    *,
    options: ModelOptions,
    profile: Annotated[
        Profile,
        typer.Option(help="What counts: the most bits per weight, the most tokens per second, or both."),
    ] = Profile.BALANCED,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Compute a few layers in each type, some seconds each.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what each quantisation of a model would take and give on this machine, and recommend one.

    Nothing is downloaded or converted. The speed is that of a few layers of the model's shapes, computed here and now:
    other work on the machine slows it down.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from modelyard.cli.typed_names import options_as_typed
    from modelyard.engine.hosts.speed_trial import measure_speed
    from modelyard.yard.tuning import tune as tuned_types

    with options_as_typed():
        config = one_model(one_model_name(name, model, command="tune"), options)
        columns = (SpinnerColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=Console(stderr=True), transient=True, disable=as_json) as progress:
            shown = progress.add_task("Reading what there is", total=None)

            def on_type(done: int, total: int, label: str) -> None:
                progress.update(shown, description=f"{label} ({done + 1} of at most {total})")

            tuning = tuned_types(config, profile.value, measure_speed if measure else None, on_type)
    if as_json:
        typer.echo(json.dumps(tuning.as_facts(), indent=2))
    else:
        _show(tuning)
    if tuning.recommended is None:
        raise typer.Exit(MEMORY)


def _show(tuning: Tuning) -> None:
    from modelyard.cli.tables import print_table, size, table_console

    console = table_console()
    rows = [
        (
            each.label,
            f"{each.bits:.1f}",
            size(each.download_bytes) if each.download_bytes else "-",
            size(each.memory_bytes) if each.is_fitting else f"{size(each.memory_bytes)}, does not fit",
            f"{each.context_length:,}",
            _number(each.tokens_per_s),
            _number(each.prefill_tokens_per_s),
            "recommended" if number == tuning.recommended else "",
        )
        for number, each in enumerate(tuning.types)
    ]
    columns = ("Type", "Bits", "Download", "Memory", "Context", "Tokens/s", "Prompt tokens/s", "")
    print_table(console, columns, rows, right=columns[1:-1])
    console.print()
    if tuning.recommended is None:
        console.print(
            f"None fits the {size(tuning.budget_bytes)} of memory for models. Choose a smaller model, or a shorter "
            "context with --max-seq-len."
        )
    else:
        chosen = tuning.types[tuning.recommended]
        console.print(f"{chosen.label}: {tuning.reason}. {_how(chosen)}", markup=False)
    for problem in dict.fromkeys(each.problem for each in tuning.types if each.problem):
        console.print(f"Not measured: {problem}", markup=False)


def _how(chosen: TunedType) -> str:
    if chosen.quant is None:
        return "That is what is served without a quantisation."
    return f'To serve it: --quant {chosen.quant}, or quant = "{chosen.quant}" in [models.quantization].'


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
