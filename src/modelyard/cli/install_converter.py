"""``modelyard install-converter``: installs llama.cpp's converter from the source archive of the installed engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.messages import print_note


def install_converter(
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive",
            metavar="FILE",
            help="Source archive (.tar.gz) of llama-cpp-python on this machine. [dim]\\[default: fetched by pip][/]",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Install it again if it is installed.")] = False,
) -> None:
    """Install llama.cpp's converter from safetensors to GGUF, in the version of the installed engine."""
    from modelyard.cli.preparing import progress_bar
    from modelyard.cli.tables import table_console
    from modelyard.hub.sources.llama_converter import INSTALL, missing_parts
    from modelyard.hub.sources.llama_converter_archive import install_converter as install

    with progress_bar(table_console()) as show:
        folder = install(show, archive=archive, force=force)
    typer.echo(f"Installed: {folder}")
    if missing := missing_parts():
        print_note(f"Conversions also need {', '.join(missing)}: {INSTALL}")
