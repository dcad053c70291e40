"""Extracts llama.cpp's converter from the source archive of the installed engine.

``llama-cpp-python`` is compiled from an archive that carries all of llama.cpp, its converter included. pip fetches that
archive, so that its indexes, proxies and certificates are those of every other installation; its name, version and
SHA-256 are checked before it is opened.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Final

from filelock import FileLock, Timeout

from modelyard.errors import UnusableModel
from modelyard.hub.sources.listing import OnProgress, Progress
from modelyard.hub.sources.llama_converter import ENGINE, LICENCE, converter_folder, engine_version, is_installed

# SHA-256 of the source archives by version. The engine is pinned in pyproject.toml: a new version is added to both.
ARCHIVES: Final = {"0.3.36": "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"}

# Paths in llama.cpp's tree that are extracted: the converters, their library, templates that conversions look up, and
# the tests of llama.cpp's server, which this server is compared with.
_EXTRACTED: Final = (
    "convert_hf_to_gguf.py",
    "convert_lora_to_gguf.py",
    "conversion/",
    "gguf-py/gguf/",
    "gguf-py/LICENSE",
    "models/templates/",
    "tools/server/tests/",
    LICENCE,
)
_LLAMA_CPP_ROOT: Final = "vendor/llama.cpp/"
_POLL_S: Final = 0.2
_READ_BYTES: Final = 2**20
_MAX_PIP_LOG_LENGTH: Final = 1500
# Build backend of llama-cpp-python. Source: its pyproject.toml, build-system.
_BUILD_BACKEND: Final = "scikit_build_core"


def install_converter(on_progress: OnProgress, *, archive: Path | None = None, force: bool = False) -> Path:
    """Install llama.cpp's converter of the installed engine's version, and return its folder.

    Any number of processes may call this at once. An interrupted installation is not taken for a complete one.

    Args:
        on_progress: returning False cancels the installation.
        archive: the source archive on this machine; None: pip fetches it.
        force: extract the converter again, although it is installed.

    Raises:
        UnusableModel: the installation failed or was cancelled; the message contains the reason and a remedy.
    """
    version = engine_version()
    if version not in ARCHIVES:
        raise UnusableModel(
            f"{ENGINE} {version or '(not installed)'} has no known converter: Modelyard knows the source archives of "
            f"{', '.join(ARCHIVES)}. Install that version: pip install {ENGINE}=={max(ARCHIVES)}"
        )
    folder = converter_folder()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f"{folder.name}.lock"), on_progress):
            if is_installed() and not force:
                return folder
            with tempfile.TemporaryDirectory(prefix=".converter-", dir=folder.parent) as name:
                staging = Path(name)
                source = archive or fetch_archive(staging, on_progress)
                _check_hash(source, ARCHIVES[version])
                _unpack(source, staging / "made", on_progress)
                if folder.exists():
                    folder.replace(staging / "before")
                (staging / "made").replace(folder)
    except OSError as error:
        raise UnusableModel(
            f"llama.cpp's converter cannot be written to {folder}: {error.strerror or error}. Make the folder writable."
        ) from error
    return folder


@contextmanager
def _locked(path: Path, on_progress: OnProgress) -> Iterator[None]:
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=_POLL_S)
        except Timeout:
            if not on_progress(Progress("waiting for another process that installs the converter", 0.0)):
                raise UnusableModel("The installation was given up.") from None
        else:
            break
    try:
        yield
    finally:
        lock.release()


def fetch_archive(staging: Path, on_progress: OnProgress) -> Path:
    """Fetch the source archive of the installed engine, whose version must be in ``ARCHIVES``, and return its path.

    pip fetches it from the index that it is configured for, and checks its hash.

    Args:
        staging: an empty folder for it.
        on_progress: returning False cancels the download.

    Raises:
        UnusableModel: it cannot be fetched, or was cancelled.
    """
    version = engine_version()
    pinned = staging / "archive.txt"
    pinned.write_text(f"{ENGINE}=={version} --hash=sha256:{ARCHIVES[version]}\n", "utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ENGINE, "--require-hashes"]
    command += [
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
        "-r",
        str(pinned),
        "-d",
        str(staging),
    ]
    if importlib.util.find_spec(_BUILD_BACKEND) is not None:
        # pip runs the build backend to read the archive's metadata. The installed backend is locked by hash; with build
        # isolation pip would run the version that the index has.
        command.append("--no-build-isolation")
    with tempfile.TemporaryFile() as log:
        # pip runs the build backend in a child process of its own: killing the process group ends both.
        pip = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, process_group=0)
        try:
            while True:
                try:
                    status = pip.wait(_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    if not on_progress(Progress(f"fetching the source archive of {ENGINE} {version}", 0.0)):
                        raise UnusableModel("The installation was given up.") from None
        finally:
            _kill(pip)
        if status:
            raise UnusableModel(
                f"pip cannot fetch the source archive of {ENGINE} {version}: {_log_tail(log)} Check the network and "
                "pip's settings (pip config list), or name the archive: modelyard install-converter --archive "
                f"llama_cpp_python-{version}.tar.gz"
            )
    found = sorted(staging.glob("*.tar.gz"))
    if not found:
        raise UnusableModel(f"pip fetched no source archive of {ENGINE} {version}. Name it with --archive.")
    return found[0]


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _log_tail(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - _MAX_PIP_LOG_LENGTH))
    return " ".join(log.read().decode("utf-8", "replace").split())


def _check_hash(archive: Path, expected: str) -> None:
    digest = hashlib.sha256()
    with archive.open("rb") as file:
        while part := file.read(_READ_BYTES):
            digest.update(part)
    if digest.hexdigest() != expected:
        raise UnusableModel(
            f"{archive} is not the source archive that is needed: its SHA-256 is {digest.hexdigest()}, and must be "
            f"{expected}. Download it again."
        )


def _unpack(archive: Path, out: Path, on_progress: OnProgress) -> None:
    """Extract the converter from an archive whose hash was checked.

    The licence, which marks the installation as complete, is written last.
    """
    out.mkdir()
    size = archive.stat().st_size
    with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r:gz") as tar:
        licence: bytes | None = None
        for member in tar:
            if not on_progress(Progress("unpacking llama.cpp's converter", min(1.0, file.tell() / size))):
                raise UnusableModel("The installation was given up.")
            name = _extracted_name(member.name, _EXTRACTED)
            if name is None or not member.isfile():
                continue
            content = tar.extractfile(member)
            assert content is not None
            if name == LICENCE:
                licence = content.read()
                continue
            target = out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as made:
                shutil.copyfileobj(content, made)
    if licence is None:
        raise UnusableModel(f"{archive} has no llama.cpp inside. Download it again.")
    (out / LICENCE).write_bytes(licence)


def _extracted_name(member: str, extracted: Iterable[str]) -> str | None:
    """Return the path below llama.cpp's root of a member that is extracted; None for all others."""
    parts = PurePosixPath(member).parts
    inside = "/".join(parts[1:])
    if ".." in parts or not inside.startswith(_LLAMA_CPP_ROOT):
        return None
    name = inside.removeprefix(_LLAMA_CPP_ROOT)
    return (
        name
        if any(name == prefix or (prefix.endswith("/") and name.startswith(prefix)) for prefix in extracted)
        else None
    )
