"""Draws what a terminal shows as a picture for the documents."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent


def prompt(command: str) -> Text:
    """Return a line in which ``command`` is typed."""
    return Text.assemble(("$ ", "bold green"), command)


def draw(picture: Path, lines: Iterable[Text], *, columns: int, title: str) -> None:
    """Write the lines as an SVG picture of a terminal of so many columns."""
    console = Console(record=True, width=columns, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    for line in lines:
        console.print(line)
    drawn = console.export_svg(title=title)
    # Fonts that a browser would fetch from elsewhere.
    picture.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL), "utf-8")
    print(f"Wrote {picture.relative_to(ROOT)}")
