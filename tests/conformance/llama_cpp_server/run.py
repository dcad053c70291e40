"""Run the tests of llama.cpp's server against this one, and compare with what differs on purpose.

    PYTHONPATH=src:tests:scripts python tests/conformance/llama_cpp_server/run.py [TESTS] [-- PYTEST]

The tests are those of the source archive that llama.cpp's converter is installed from.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from conformance.llama_cpp_server.assertions import adapted
from conformance.llama_cpp_server.differences import DIFFERENCES, OTHER_FILES
from modelyard.hub.sources.llama_converter import converter_folder

WAIT_S: Final = 1800
TEST_S: Final = 120
_ROOT: Final = Path(__file__).parents[3]


@dataclass
class Comparison:
    """The outcome of all tests.

    Attributes:
        passed: names of tests that passed.
        differs: name -> why it differs on purpose.
        skipped: name -> why the suite itself left it out.
        failed: name -> how it failed, though nothing says that it may.
        outdated: names that ``DIFFERENCES`` lists, and that pass.
    """

    passed: list[str] = field(default_factory=list)
    differs: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    outdated: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return the numbers of each file, and what needs attention, as text."""
        files = sorted({name.partition("::")[0] for name in self._names()})
        rows = [("file", "passed", "differs", "skipped", "failed")]
        groups = (self.passed, self.differs, self.skipped, self.failed)
        rows += [
            (file, *(str(sum(name.startswith(f"{file}::") for name in group)) for group in groups)) for file in files
        ]
        rows.append(("all", *(str(len(group)) for group in groups)))
        lines = [f"{row[0]:<32}" + "".join(f"{cell:>9}" for cell in row[1:]) for row in rows]
        lines += [f"{name}\n    {why}" for name, why in self.failed.items()]
        lines += [f"{name} passes: take it from the list of differences" for name in self.outdated]
        return "\n".join(lines)

    def _names(self) -> list[str]:
        return [*self.passed, *self.differs, *self.skipped, *self.failed]


def compare(outcomes: Mapping[str, Sequence[str]], differences: Mapping[str, str]) -> Comparison:
    """Sort outcomes, name -> (outcome, reason), by whether ``differences`` lists their names.

    A key of ``differences`` is the name of a file, of a test, or of a test with its parameters.
    """
    compared = Comparison()
    matched: dict[str, list[str]] = {}
    for full, (outcome, reason) in outcomes.items():
        name = full.removeprefix("unit/")
        key = next((key for key in (name, name.partition("[")[0], name.partition("::")[0]) if key in differences), None)
        if outcome == "skipped":
            compared.skipped[name] = reason
        elif outcome == "passed":
            compared.passed.append(name)
        elif key is None:
            compared.failed[name] = reason
        else:
            compared.differs[name] = differences[key]
        if key is not None:
            matched.setdefault(key, []).append(outcome)
    compared.outdated = [key for key, found in matched.items() if "failed" not in found]
    return compared


def suite_folder() -> Path:
    """Return the folder of the tests.

    Raises:
        FileNotFoundError: they are not there.
    """
    folder = converter_folder() / "tools" / "server" / "tests"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing. Run: modelyard install-converter --force")
    return folder


def run(tests: Path, arguments: Sequence[str] = ()) -> Comparison:
    """Run the tests in ``tests``, in a process of their own, and compare their outcomes."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder) / "outcomes.json"
        path = os.pathsep.join(map(str, (_ROOT / "src", _ROOT / "tests", _ROOT / "scripts")))
        environment = {**os.environ, "PYTHONPATH": path, "OUTCOMES": str(outcomes), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-c", "pytest.ini", "--rootdir", ".", "-p", "no:cacheprovider"]
        command += [
            "-p",
            "conformance.llama_cpp_server.adapter",
            "-q",
            "--tb=line",
            "-m",
            "not slow",
            f"--timeout={TEST_S}",
        ]
        command += [f"--ignore=unit/{name}" for name in OTHER_FILES]
        tests = adapted(tests, Path(folder) / "llama.cpp")
        subprocess.run([*command, *(arguments or ["unit"])], cwd=tests, env=environment, timeout=WAIT_S, check=False)
        return compare(json.loads(outcomes.read_text()), DIFFERENCES)


def main(arguments: list[str]) -> int:
    """Run as a command; the exit status."""
    folder = Path(arguments.pop(0)) if arguments and arguments[0] != "--" else suite_folder()
    compared = run(folder, arguments[1:])
    print(compared.table())
    return bool(compared.failed or compared.outdated)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
