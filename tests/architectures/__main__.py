"""Compare architectures with transformers, and write docs/models.md.

    python -m architectures [NAME …] [--again] [--page] [--out FILE]

Without names: all, but those whose result is known for the installed versions. With names: those, in any case.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from architectures.making import describe, made
from architectures.memory import NotMeasured, measure
from architectures.page import Row, write_page
from architectures.pictures import compare_pictures
from architectures.places import ROOT, Unavailable, cache
from architectures.pooled import POOLED
from architectures.results import Result, Results, discard_conversions, versions
from architectures.rows import picture_row, pooled_row, text_row
from architectures.seeing import SEEING
from architectures.server import LEVELS, Ended, Stopped
from architectures.sound import CLASSES, SOUND
from architectures.table import ARCHITECTURES
from architectures.text import TextResult, compare_text
from architectures.vectors import compare_vectors

PAGE: Final = ROOT / "docs" / "models.md"

Facts = dict[str, Any]

# Comparisons of which somebody has stopped the server are made again.
_ATTEMPTS: Final = 4


@dataclass(frozen=True, slots=True)
class Task:
    """One comparison: what it is about, how it is done, and its row of the page."""

    kind: str
    name: str
    described: str
    compare: Callable[[], Facts]
    row: Callable[[Mapping[str, Any]], Row]


def tasks(*, is_quick: bool) -> list[Task]:
    """All comparisons, in the order of the page; quick ones are of full precision alone, and measure no memory."""
    texts = [
        Task(
            "quick" if is_quick else "text",
            one.name,
            describe(one),
            lambda name=name: _text(name, is_quick=is_quick),
            lambda facts, one=one: text_row(one, facts),
        )
        for name, one in ARCHITECTURES.items()
    ]
    vectors = [
        Task(
            "embeddings",
            one.name,
            describe(one),
            lambda one=one: asdict(compare_vectors(one)),
            lambda facts, one=one: pooled_row(one, facts),
        )
        for one in POOLED.values()
    ]
    pictures = [
        Task(
            "pictures",
            one.name,
            describe(one),
            lambda one=one: asdict(compare_pictures(one)),
            lambda facts, one=one: picture_row(one, facts),
        )
        for one in SEEING.values()
    ]
    sounds = [
        Task(
            "sound",
            name,
            name,
            lambda name=name, compare=compare: {"said": compare(name, cache() / "checkpoints")},
            lambda facts, name=name: Row(name, CLASSES[name], sound=str(facts.get("said", facts.get("ended", "")))),
        )
        for name, compare in SOUND.items()
    ]
    return [*texts, *pictures, *sounds, *vectors]


def _text(name: str, *, is_quick: bool) -> Facts:
    """Compare a text architecture, and measure its memory.

    Raises:
        Ended: the server's process ended.
        Unavailable: the tokenizer cannot be had.
    """
    checkpoint = made(ARCHITECTURES[name])
    result: TextResult = compare_text(name, checkpoint, tuple(LEVELS)[: 1 if is_quick else None])
    facts = asdict(result)
    if result.levels and not is_quick:
        try:
            memory = measure(name, checkpoint.folder)
            facts["memory"] = asdict(memory)
        except NotMeasured as failure:
            facts["memory"] = {"failure": str(failure)}
    return facts


def _compare(task: Task) -> Facts:
    for _ in range(_ATTEMPTS - 1):
        try:
            return task.compare()
        except Stopped:
            continue
    return task.compare()


def run(task: Task) -> Result:
    """Do a comparison and keep its result.

    Raises:
        Unavailable: something that it needs cannot be had.
    """
    results = Results(task.kind)
    try:
        facts = _compare(task)
    except Ended as ended:
        facts = {"ended": str(ended)}
    finally:
        discard_conversions(task.name)
    return results.keep(task.name, task.described, facts)


def main(arguments: Sequence[str]) -> int:
    """Run as a command; the exit status is 1 where something could not be compared."""
    parser = argparse.ArgumentParser(prog="make architectures", description="Compare architectures with transformers.")
    parser.add_argument("names", nargs="*", help="Architectures; all without.")
    parser.add_argument("--again", action="store_true", help="Compare also what was compared before.")
    parser.add_argument("--page", action="store_true", help="Write the page of what is known, and compare nothing.")
    parser.add_argument("--out", type=Path, default=PAGE, help="The page; docs/models.md without.")
    parser.add_argument("--quick", action="store_true", help="In full precision alone, and without memory.")
    options = parser.parse_args(arguments)
    every = tasks(is_quick=options.quick)
    if unknown := set(options.names) - {task.name for task in every}:
        print(
            f"Unknown: {', '.join(sorted(unknown))}. Known: {', '.join(task.name for task in every)}", file=sys.stderr
        )
        return 2
    chosen = [task for task in every if not options.names or task.name in options.names]
    rows, missing = [], 0
    for task in every:
        result = Results(task.kind).find(task.name, task.described)
        is_due = task in chosen and not options.page and (result is None or options.again or bool(options.names))
        if is_due:
            result = _with_progress(task, chosen)
            missing += result is None
        if result is not None:
            rows.append(task.row(result.facts))
    options.out.write_text(write_page(rows, versions()), "utf-8")
    print(f"{options.out.name}: {len(rows)} of {len(every)} architectures.")
    return 1 if missing else 0


def _with_progress(task: Task, chosen: Sequence[Task]) -> Result | None:
    started = time.monotonic()
    place = f"[{chosen.index(task) + 1}/{len(chosen)}] {task.name}"
    try:
        result = run(task)
    except Unavailable as unavailable:
        print(f"{place}: not compared. {unavailable}", flush=True)
        return None
    except Exception as failure:
        print(f"{place}: the comparison failed. {type(failure).__name__}: {failure}", flush=True)
        return None
    row = task.row(result.facts)
    said = next((cell for cell in (row.text, row.pictures, row.sound, row.embeddings) if cell), "?")
    print(f"{place}: {said} ({time.monotonic() - started:.0f} s)", flush=True)
    for limit in row.limits:
        print(f"    {limit}", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
