"""``modelyard install-converter``: llama.cpp's converter, out of the source archive of the installed engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def install_converter(
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive",
            metavar="FILE",
            help="The source archive (.tar.gz) of llama-cpp-python, where it is on this machine. "
            "[dim]\\[default: pip fetches it][/]",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Install it again, although it is there.")] = False,
) -> None:
    """Install what converts safetensors to GGUF: llama.cpp's converter, of the installed engine's version."""
    from modelyard.cli.preparing import shown
    from modelyard.cli.tables import table_console
    from modelyard.hub.sources.llama_converter import INSTALL, missing_parts
    from modelyard.hub.sources.llama_converter_archive import install_converter as install

    with shown(table_console()) as show:
        folder = install(show, archive=archive, force=force)
    typer.echo(f"Installed: {folder}")
    if missing := missing_parts():
        typer.echo(f"Conversions also need {', '.join(missing)}: {INSTALL}", err=True)
