"""``modelyard doctor``: checks this machine and installation, and gives advice about problems."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from modelyard.cli.options import ConfigOption

_STYLES: Final = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(
    name: Annotated[
        Path | None, typer.Argument(metavar="TOML", help="A configuration, whose models and hub are checked too.")
    ] = None,
    config_file: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check devices, memory, versions, caches and the hub, and give advice.

    Exit code 1: no model can be served.
    """
    from modelyard.cli.model_names import config_path
    from modelyard.config import Config, load_config
    from modelyard.config.reader import ConfigReader
    from modelyard.doctor.checks import check_facts, is_usable
    from modelyard.doctor.collect import collect_facts

    file = config_path(name, config_file, command="doctor") if name or config_file else None
    config = Config() if file is None else ConfigReader(lambda: load_config(file)).read()
    findings = check_facts(collect_facts(config, file))
    usable = is_usable(findings)
    if as_json:
        typer.echo(json.dumps({"usable": usable, "findings": [asdict(finding) for finding in findings]}, indent=2))
        raise typer.Exit(0 if usable else 1)
    from rich.text import Text

    from modelyard.cli.tables import print_table, table_console

    rows = []
    for finding in findings:
        text = Text(finding.value)
        if finding.advice:
            hint = " The command is below." if finding.command else ""
            text.append(f"\n{finding.advice}{hint}", style="dim")
        verdict = Text(finding.verdict, style=_STYLES[finding.verdict])
        rows.append((verdict, finding.label, text))
    console = table_console()
    print_table(console, ("", "", ""), rows, prose=True)
    for finding in findings:
        if finding.command:
            # Not wrapped, so that the command can be pasted.
            console.print(f"\n{finding.label}:")
            console.print(Text(finding.command), soft_wrap=True)
    notes = sum(finding.verdict == "note" for finding in findings)
    console.print(f"\n{_conclusion(usable, notes)}")
    raise typer.Exit(0 if usable else 1)


def _conclusion(usable: bool, notes: int) -> str:
    if not usable:
        return "No model can be served until the problem is solved."
    if not notes:
        return "Models can be served; nothing stands in the way."
    return f"Models can be served; {'1 note is' if notes == 1 else f'{notes} notes are'} worth a look."
