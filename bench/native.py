"""llama.cpp's own server, built natively from the source archive of the installed binding."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from rich.console import Console

from modelyard.hub.sources.llama_converter import engine_version
from modelyard.hub.sources.llama_converter_archive import fetch_archive
from modelyard.system.build_facts import knows_amx
from modelyard.system.llama_builds import WITHOUT_AMX

_OPTIONS = ("LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_UI", "LLAMA_OPENSSL")


def native_server(folder: Path, console: Console) -> Path:
    """The program ``llama-server``, built in some ten minutes where it is not there yet.

    Raises:
        RuntimeError: it cannot be built; the message is the compiler's last line.
    """
    version = engine_version()
    build = folder / f"llama-server-{version}"
    program = build / "bin" / "llama-server"
    if program.exists():
        return program
    cmake = shutil.which("cmake")
    if cmake is None:
        raise RuntimeError("cmake is not installed, which builds it")
    with (
        console.status(f"Building llama.cpp's server from the archive of llama-cpp-python {version}"),
        tempfile.TemporaryDirectory(dir=folder) as place,
    ):
        archive = fetch_archive(Path(place), lambda _: True)
        with tarfile.open(archive) as packed:
            packed.extractall(place, filter="data")
        source = next(Path(place).glob("*/vendor/llama.cpp"))
        options = [f"-D{option}=OFF" for option in (*_OPTIONS, "BUILD_SHARED_LIBS")]
        if knows_amx(["c++"], "c++"):
            # Its kernels for AMX crash, as in the binding, which is built without them too.
            options += [f"-DCMAKE_{language}_FLAGS={WITHOUT_AMX}" for language in ("C", "CXX")]
        _run([cmake, "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", *options])
        _run([cmake, "--build", build, "--target", "llama-server", "--parallel"])
    return program


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it says nothing"]
        raise RuntimeError(f"llama.cpp's server cannot be built: {lines[-1]}")
