"""Play random cases against the parts that read what others write.

    python -m fuzz [--kind KIND …] [--seconds SECONDS] [--seed SEED] [--weights FILE]

Each case follows from its kind and its seed alone. A fault prints the command that plays it again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from demo_weights import prepare as prepare_weights

from fuzz.case import Fault, Place
from fuzz.kinds import KINDS
from fuzz.messages import server_of

ROOT: Final = Path(__file__).resolve().parents[2]
DEFAULT_SECONDS: Final = 120.0
_PROGRESS_S: Final = 10.0


@dataclass
class Tally:
    """What came of the cases of one kind."""

    ends: Counter[str] = field(default_factory=Counter)
    most: dict[str, float] = field(default_factory=dict)
    faults: int = 0
    seconds: float = 0.0

    @property
    def cases(self) -> int:
        """How many were played."""
        return self.faults + sum(self.ends.values())


def play(kind: str, seed: int, place: Place, tally: Tally) -> Fault | None:
    """Play one case, and count it; the fault, where there is one."""
    started = time.monotonic()
    try:
        ending = KINDS[kind](seed, place)
        tally.ends[ending.how] += 1
        for what, value in ending.measured.items():
            tally.most[what] = max(value, tally.most.get(what, 0.0))
    except Fault as fault:
        tally.faults += 1
        return fault
    finally:
        tally.seconds += time.monotonic() - started
    return None


def main(arguments: Sequence[str]) -> int:
    """Run as a command; the exit status is 1 where a fault was found."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="Play random cases.")
    parser.add_argument("--kind", nargs="*", choices=tuple(KINDS), default=[], help="All without.")
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="How long to play; 120 without.")
    parser.add_argument("--seed", type=int, help="Play this case alone, of each kind.")
    parser.add_argument("--first", type=int, help="Play on from this seed; without, from one that the clock gives.")
    options = parser.parse_args(arguments)
    kinds = options.kind or list(KINDS)
    tallies = {kind: Tally() for kind in kinds}
    first = options.first if options.first is not None else int(time.time()) * 1000
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        place = Place(Path(folder), prepare_weights(ROOT / ".weights")["smollm2"])
        try:
            if options.seed is not None:
                for kind in kinds:
                    _play_and_tell(kind, options.seed, place, tallies[kind])
            else:
                _play_all(kinds, first, options.seconds, place, tallies)
        finally:
            server_of(place).close()
    print(_table(tallies))
    return 1 if any(tally.faults for tally in tallies.values()) else 0


def _play_all(kinds: Sequence[str], first: int, seconds: float, place: Place, tallies: Mapping[str, Tally]) -> None:
    """Play cases until the time is over; the kind that had the least of it is next."""
    deadline, told = time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < deadline:
        kind = min(kinds, key=lambda each: tallies[each].seconds)
        _play_and_tell(kind, first + tallies[kind].cases, place, tallies[kind])
        if time.monotonic() - told > _PROGRESS_S:
            told = time.monotonic()
            counts = ", ".join(f"{name} {tally.cases} ({tally.faults} faults)" for name, tally in tallies.items())
            print(f"[{deadline - told:.0f} s left] {counts}", flush=True)


def _play_and_tell(kind: str, seed: int, place: Place, tally: Tally) -> None:
    fault = play(kind, seed, place, tally)
    if fault is not None:
        print(f"make fuzz KIND={kind} SEED={seed}\n    {fault}", flush=True)


def _table(tallies: Mapping[str, Tally]) -> str:
    lines = [f"{'kind':<10} {'cases':>7} {'faults':>7} {'seconds':>8}  how they ended"]
    for kind, tally in tallies.items():
        ends = ", ".join(f"{count} {end}" for end, count in tally.ends.most_common())
        lines.append(f"{kind:<10} {tally.cases:>7} {tally.faults:>7} {tally.seconds:>8.0f}  {ends}")
        lines.extend(f"    at most {value:.3g} {what}" for what, value in tally.most.items())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
