"""Make a release: set the version, date its section of the changelog, commit and tag: ``make release VERSION=1.2.3``.

Nothing is changed unless all of it can be: the work tree is clean, the version is newer than the last one, and the
changelog has something under "Unreleased". Nothing is pushed or published.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

from lock_file import parse_lock
from sbom import RUNTIME, bill_of, write_bill

ROOT = Path(__file__).resolve().parent.parent
CHANGELOG = "CHANGELOG.md"
VERSION_FILE = "src/modelyard/version.py"

MAX_COMMAND_S = 60.0

_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_RELEASED = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", re.MULTILINE)
_UNRELEASED = re.compile(r"^## \[Unreleased\]\n(.*?)(?=^## \[|\Z)", re.MULTILINE | re.DOTALL)
_NOTHING_YET = re.compile(r" Nothing has been released yet; the version in\s+the source is [\d.]+\.")
_ASSIGNED = re.compile(r'^__version__ = "([^"]*)"$', re.MULTILINE)


class ReleaseRefused(Exception):
    """There can be no such release; the message says why and what to do."""


def released_changelog(text: str, version: str, today: date) -> str:
    """Return the changelog with what was unreleased under a version and a date, and an empty section above it.

    Raises:
        ReleaseRefused: nothing is unreleased, or a version as new is there.
    """
    found = _UNRELEASED.search(text)
    if found is None or not re.search(r"^- ", found[1], re.MULTILINE):
        raise ReleaseRefused(f"{CHANGELOG} has nothing under '## [Unreleased]'. Write there what changes for users.")
    last = max(map(_numbers, _RELEASED.findall(text)), default=None)
    if last is not None and _numbers(version) <= last:
        newest = ".".join(map(str, last))
        raise ReleaseRefused(f"{version} is not newer than {newest}, the last version in {CHANGELOG}.")
    section = f"## [Unreleased]\n\n## [{version}] - {today.isoformat()}\n\n{found[1].strip()}\n"
    rest = text[found.end() :]
    return _NOTHING_YET.sub("", text[: found.start()] + section + (f"\n{rest}" if rest else ""))


def with_version(text: str, version: str) -> str:
    """Return the text of version.py with another version.

    Raises:
        ReleaseRefused: its version is newer.
    """
    found = _ASSIGNED.search(text)
    if found is None:
        raise ReleaseRefused(f'{VERSION_FILE} has no line __version__ = "…".')
    if _VERSION.fullmatch(found[1]) and _numbers(version) < _numbers(found[1]):
        raise ReleaseRefused(f"{version} is older than {found[1]}, the version in {VERSION_FILE}.")
    return text[: found.start(1)] + version + text[found.end(1) :]


def release(root: Path, version: str, today: date, write_sbom: Callable[[], None]) -> str:
    """Write the files of a release, commit them, and tag the commit.

    Args:
        root: the work tree.
        version: three numbers.
        today: the date in the changelog.
        write_sbom: writes the bill of materials again, which has the version in it.

    Returns:
        The name of the tag.

    Raises:
        ReleaseRefused: there can be no such release; nothing is changed.
    """
    if not _VERSION.fullmatch(version):
        raise ReleaseRefused(f"'{version}' is no version. Write three numbers: make release VERSION=1.2.3")
    if changes := _git(root, "status", "--porcelain"):
        raise ReleaseRefused(f"The work tree has changes. Commit them, or put them aside:\n{changes}")
    tag = f"v{version}"
    if _git(root, "tag", "--list", tag):
        raise ReleaseRefused(f"There is a tag {tag} already.")
    changelog, source = root / CHANGELOG, root / VERSION_FILE
    texts = {
        changelog: released_changelog(changelog.read_text("utf-8"), version, today),
        source: with_version(source.read_text("utf-8"), version),
    }
    for path, text in texts.items():
        path.write_text(text, "utf-8")
    write_sbom()
    _git(root, "add", "--update")
    _git(root, "commit", "--quiet", "--message", f"Release {version}")
    _git(root, "tag", "--annotate", tag, "--message", f"Modelyard {version}")
    return tag


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _git(root: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=MAX_COMMAND_S, check=False)
    if done.returncode:
        raise ReleaseRefused(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def main(arguments: list[str]) -> int:
    """Run as a command; the exit status."""
    version = arguments[0] if arguments else ""
    try:
        tag = release(
            ROOT,
            version,
            datetime.now(UTC).date(),
            lambda: write_bill(bill_of(parse_lock(RUNTIME.read_text("utf-8")))),
        )
    except ReleaseRefused as refused:
        print(refused, file=sys.stderr)
        return 1
    print(f"Tagged {tag}. Next: make package, then git push --follow-tags")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
