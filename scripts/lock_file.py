"""Lock files, as pip reads them: one pinned package with the hashes of all its files after the other. Standard library
alone: what sets the environment up reads them before anything is installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable  # noqa: UP035 - an old Python must get as far as the message about it


@dataclass(frozen=True)
class Pin:
    """A package at a version.

    Attributes:
        name: in the form that names are compared in.
        marker: where it is needed; "": everywhere.
        hashes: SHA-256 of each file that may be installed.
        via: names of those that need it, where that is known.
    """

    name: str
    version: str
    marker: str = ""
    hashes: tuple = ()
    via: tuple = ()


def canonical(name: str) -> str:
    """A distribution's name in the one form that pip compares."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_lock(text: str) -> list[Pin]:
    """The pins in a lock file, in order. Comments but uv's ``# via`` are left out.

    Raises:
        ValueError: it has a line that is none of a lock file.
    """
    pins: list[Pin] = []
    for line in text.replace("\\\n", " ").splitlines():
        stripped = line.strip()
        if stripped.startswith("# via "):
            named = [name for name in stripped[len("# via ") :].split(", ") if re.fullmatch(r"[A-Za-z0-9._-]+", name)]
            last = pins.pop()
            pins.append(Pin(last.name, last.version, last.marker, last.hashes, tuple(map(canonical, named))))
        elif stripped and not stripped.startswith("#"):
            pins.append(_pin(stripped))
    return pins


def _pin(line: str) -> Pin:
    requirement, *hashes = line.split(" --hash=")
    wanted, _, marker = requirement.partition(";")
    matched = re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s;]+)", wanted.strip())
    wrong = [each for each in hashes if not re.fullmatch(r"sha256:[0-9a-f]{64}", each.strip())]
    if matched is None or wrong or not hashes:
        raise ValueError(f"This is no line of a lock file, with a version and SHA-256 hashes: {line[:100]!r}")
    return Pin(
        canonical(matched[1]), matched[2], marker.strip(), tuple(each.strip()[len("sha256:") :] for each in hashes)
    )


def render(pins: Iterable[Pin]) -> str:
    """The pins as lines of a lock file, by name."""
    lines = []
    for pin in sorted(pins, key=lambda pin: pin.name):
        head = f"{pin.name}=={pin.version}" + (f" ; {pin.marker}" if pin.marker else "")
        lines.append(" \\\n".join([head, *(f"    --hash=sha256:{digest}" for digest in sorted(pin.hashes))]))
    return "".join(f"{line}\n" for line in lines)
