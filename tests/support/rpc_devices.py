"""Devices for tests, on machines without any: the processor behind llama.cpp's RPC backend.

Each device is a process with a memory size of its own, which refuses to allocate more. llama.cpp lists them as devices
of kind GPU ("RPC0", "RPC1"), and models load, split and compute on them as on any other. Their backend is compiled from
the source archive of the installed engine in about ten seconds, once for each build of it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock

from modelyard.engine.llama.library import BACKEND_VARIABLE, start
from modelyard.hub.sources.llama_converter import engine_build, engine_version
from modelyard.hub.sources.llama_converter_archive import fetch_archive
from modelyard.llama_binding import LIBRARIES

SOURCE: Final = Path(__file__).with_name("rpc_device.cpp")
PROGRAM: Final = Path(__file__).with_name("rpc_device_program.py")
OTHER_PROGRAM: Final = Path(__file__).with_name("device_memory_program.py")
SERVERS_VARIABLE: Final = "MODELYARD_TEST_DEVICES"

_GGML: Final = "vendor/llama.cpp/ggml/"
_COMPILE_S: Final = 300.0


@dataclass(frozen=True)
class RpcDevices:
    """Running devices.

    Attributes:
        environment: variables of processes whose llama.cpp has these devices.
        names: as llama.cpp lists them, in the order of their sizes.
        processes: the devices.
        used: a file for each, with the bytes that are allocated.
    """

    environment: Mapping[str, str]
    names: tuple[str, ...]
    processes: tuple[subprocess.Popen[str], ...]
    used: tuple[Path, ...]

    def used_bytes(self) -> dict[str, int]:
        """Bytes that are allocated on each device."""
        return {
            name: int.from_bytes(file.read_bytes(), sys.byteorder)
            for name, file in zip(self.names, self.used, strict=True)
        }

    @contextmanager
    def taken(self, number: int, size: int) -> Iterator[None]:
        """Have another program take ``size`` bytes of a device."""
        other = subprocess.Popen(
            [sys.executable, str(OTHER_PROGRAM), self.names[number], str(size)],
            env={**os.environ, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with other:
            try:
                assert other.stdout is not None
                assert other.stdout.readline().strip() == "taken"
                yield
            finally:
                other.kill()

    def kill(self, number: int) -> None:
        """End a device, as if it fell off the bus."""
        self.processes[number].send_signal(signal.SIGKILL)
        self.processes[number].wait()


@contextmanager
def rpc_devices(*sizes: int, threads: int = 1) -> Iterator[RpcDevices]:
    """Run a device for each of ``sizes``, its bytes of memory.

    llama.cpp is started in this process first, and so without these devices: once they have ended, they would end this
    process as soon as any later test loads a model in it.
    """
    start()
    library = backend_library()
    ports = _free_ports(len(sizes))
    folder = tempfile.TemporaryDirectory()
    used = tuple(Path(folder.name) / f"used-{number}" for number in range(len(sizes)))
    for file in used:
        file.write_bytes(bytes(8))
    processes = [
        _start(library, port, size, threads, file) for port, size, file in zip(ports, sizes, used, strict=True)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "listening", "a device did not start"
        servers = ",".join(f"127.0.0.1:{port}" for port in ports)
        yield RpcDevices(
            {BACKEND_VARIABLE: str(library), SERVERS_VARIABLE: servers},
            tuple(f"RPC{number}" for number in range(len(sizes))),
            tuple(processes),
            used,
        )
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        folder.cleanup()


def _start(library: Path, port: int, size: int, threads: int, used: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(library), str(port), str(size), str(threads), str(used)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def backend_library() -> Path:
    """Return the compiled backend, which is kept for this source and the engine whose libraries it names."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard-tests"
    cache.mkdir(parents=True, exist_ok=True)
    facts = f"{engine_version()} {engine_build()} {LIBRARIES}".encode() + SOURCE.read_bytes()
    library = cache / f"librpc_device-{hashlib.blake2b(facts, digest_size=8).hexdigest()}.so"
    with FileLock(library.with_suffix(".lock")):
        if not library.is_file():
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                _compile(Path(folder), library)
    return library


def _compile(folder: Path, library: Path) -> None:
    archive = folder / "archive"
    archive.mkdir()
    ggml = _unpack(fetch_archive(archive, lambda _: True), folder)
    built = folder / "built.so"
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-DNDEBUG", "-pthread"]
    includes = [f"-I{ggml / part}" for part in ("include", "src", "src/ggml-rpc")]
    linked = [f"-l:{name}.so.0" for name in ("libggml", "libggml-cpu", "libggml-base")]
    compiler = os.environ.get("CXX") or "g++"
    sources = [str(SOURCE), str(ggml / "src/ggml-rpc/transport.cpp")]
    command = [compiler, *flags, *includes, *sources, "-o", str(built), f"-L{LIBRARIES}", *linked]
    subprocess.run([*command, f"-Wl,-rpath,{LIBRARIES}"], check=True, timeout=_COMPILE_S)
    built.replace(library)


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack ggml's headers and its RPC backend, and return the folder of ggml."""
    with tarfile.open(archive) as tar:
        root = tar.next().name.partition("/")[0]  # type: ignore[union-attr]
        inside = f"{root}/{_GGML}"
        members = [
            member
            for member in tar
            if member.name.startswith((f"{inside}include/", f"{inside}src/ggml-rpc/"))
            or (member.name.startswith(f"{inside}src/") and member.name.endswith(".h"))
        ]
        tar.extractall(folder, members, filter="data")
    return folder / root / _GGML
