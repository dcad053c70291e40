"""Tables at every width: what they hold is never cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from modelyard.cli.tables import print_table

NAME = "mistralai/Mistral-Small-3.2-24B-Instruct-2506-Q4_K_M"
HEADINGS = ("Model", "Size", "What")
PROSE = "converted from a checkpoint that was downloaded the day before"


def printed(width: int, *, prose: bool = True) -> str:
    file = io.StringIO()
    print_table(Console(file=file, width=width), HEADINGS, [(NAME, "1.5 GB", PROSE)], right=("Size",), prose=prose)
    return file.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("prose", [True, False])
def test_a_name_is_never_cut_or_folded(width: int, prose: bool) -> None:
    assert NAME in printed(width, prose=prose)


def test_a_wide_terminal_shows_one_line_a_row_and_a_narrow_one_a_block() -> None:
    assert printed(200).splitlines()[0].split() == list(HEADINGS)
    assert len(printed(200).splitlines()) == 2
    assert printed(60).splitlines()[:2] == [NAME, "  Size: 1.5 GB"]


def test_prose_is_wrapped_at_words() -> None:
    lines = printed(100).splitlines()
    assert len(lines) > 2
    assert all(len(line) <= 100 for line in lines)
    assert " ".join(" ".join(lines[1:]).split()).endswith("the day before")
