"""The README's program works as pasted, but for the address."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.server import RunningServer

README = Path(__file__).parent.parent.parent / "README.md"


def test_the_python_example_prints_an_answer(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    programs = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    (program,) = (program for program in programs if "base_url" in program)
    program = program.replace("http://localhost:1234", server.url).replace('"gemma3"', '"smollm2"')
    names: dict[str, object] = {}
    exec(compile(program, "README.md", "exec"), names)
    names["client"].close()
    assert capsys.readouterr().out.strip()
