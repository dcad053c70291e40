"""Try every input of this package on a server.

    python -m faults [files|texts|schemas|architectures …]

Prints a line for each, and ends with 1 where one did what it should not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import llama_gguf
from demo_weights import prepare

llama_gguf.add_to_path()

from faults.files import DAMAGES  # noqa: E402 (it imports what the line above makes importable)
from faults.texts import SCHEMAS, TEXTS  # noqa: E402
from faults.trying import Outcome, try_architectures, try_files, try_schemas, try_texts  # noqa: E402

ROOT: Final = Path(__file__).resolve().parents[2]
KINDS: Final = ("files", "texts", "schemas", "architectures")
PRE_TOKENIZERS: Final = [name.partition(": ")[2] for name in DAMAGES if name.startswith("pre-tokenizer: ")]


def outcomes(kind: str, folder: Path, *, is_isolated: bool) -> Iterator[Outcome]:
    """All of one kind."""
    weights = prepare(ROOT / ".weights")
    match kind:
        case "files":
            return try_files(folder, weights, DAMAGES, is_isolated=is_isolated)
        case "texts":
            return try_texts(folder, weights, PRE_TOKENIZERS, TEXTS, is_isolated=is_isolated)
        case "schemas":
            return try_schemas(folder, weights, SCHEMAS, is_isolated=is_isolated)
        case _:
            return try_architectures(folder, weights, is_isolated=is_isolated)


def main() -> int:
    """Try them, and print what came of each; how many were wrong."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help="files, texts, schemas or architectures; all where none is named"
    )
    parser.add_argument(
        "--isolated", action="store_true", help="try nothing before it is served, and give each engine a process"
    )
    arguments = parser.parse_args()
    kinds = arguments.kinds or KINDS
    if unknown := sorted(set(kinds) - set(KINDS)):
        parser.error(f"There is no kind {', '.join(unknown)}. There are: {', '.join(KINDS)}.")
    tried = wrong = 0
    with TemporaryDirectory() as root:
        folders = {kind: Path(root) / kind for kind in kinds}
        for folder in folders.values():
            folder.mkdir()
        for outcome in chain.from_iterable(
            outcomes(kind, folder, is_isolated=arguments.isolated) for kind, folder in folders.items()
        ):
            tried, wrong = tried + 1, wrong + bool(outcome.problems)
            verdict = "WRONG" if outcome.problems else "right"
            print(
                f"{verdict} {outcome.name}: {outcome.status} in {outcome.took_s:.1f} s, "
                f"others paused for {outcome.gap_s:.2f} s: {outcome.said[:200]!r}",
                flush=True,
            )
            for problem in outcome.problems:
                print(f"      {problem}", flush=True)
    print(f"{tried} inputs, {wrong} of them wrong.")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
