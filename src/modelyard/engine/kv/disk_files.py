"""Files of kept prompts: whose they are by their names, and when they were used last.

Engines of other processes may delete any of them at any time: what is gone counts as empty and as old.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from modelyard.system.private_files import open_private


def salt_of(file: Path) -> str:
    """Return the salt in a file's name; "" where it has none."""
    parts = file.stem.split("-")
    return parts[1] if len(parts) == 3 else ""


def round_robin(files: Iterable[Path]) -> list[Path]:
    """Order files in rounds: each round has one file of each salt."""
    turns: Counter[str] = Counter()
    ranked = []
    for file in files:
        ranked.append((turns[salt_of(file)], file))
        turns[salt_of(file)] += 1
    return [file for _, file in sorted(ranked, key=lambda found: found[0])]


def size_of(file: Path) -> int:
    """Return the bytes of a file; 0 where it does not exist, since another engine may have deleted it."""
    try:
        return file.lstat().st_size
    except FileNotFoundError:
        return 0


def touch(file: Path, used_ns: int) -> int:
    """Set the time of the file's last use; return its bytes, 0 where it does not exist or is another user's."""
    try:
        with open_private(file):
            # By name, not by descriptor: another engine may have deleted the file since it was opened.
            os.utime(file, ns=(used_ns, used_ns))
            return file.stat().st_size
    except (FileNotFoundError, PermissionError):
        # A file of another user under this name counts as missing, and is replaced.
        return 0


def last_used_ns(file: Path) -> int:
    """Return the time of the file's last use; 0 where it does not exist."""
    try:
        return file.lstat().st_mtime_ns
    except FileNotFoundError:
        return 0
