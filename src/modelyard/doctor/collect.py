"""Collects facts about the machine, the installation, the caches and the hub for ``modelyard doctor``."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from modelyard.config import Config, read_keys, read_token
from modelyard.doctor.checks import Facts, Folder
from modelyard.doctor.device_use import unused_devices
from modelyard.doctor.hub import HubFacts, check_connectivity
from modelyard.doctor.llama import probe_llama
from modelyard.doctor.remote import remote_facts
from modelyard.doctor.settings import MIN_KEY_CHARS, FileMode, UnsafeSetting, unsafe_settings
from modelyard.errors import ConfigError
from modelyard.hub import ConvertedModels, Downloads
from modelyard.hub.sources.llama_converter import missing_parts
from modelyard.system import hardware
from modelyard.system.build_facts import build_facts
from modelyard.system.cores import compute_cores, usable_cores
from modelyard.system.memory import available_bytes, physical_bytes, total_bytes
from modelyard.system.typed_paths import exists
from modelyard.version import __version__

_PACKAGES: Final = ("llama-cpp-python", "huggingface_hub", "torch", "transformers")


def collect_facts(config: Config, file: Path | None = None) -> Facts:
    """Return all facts that ``check_facts`` needs. Takes some seconds, for llama.cpp and the network.

    Args:
        config: the configuration to check.
        file: the file that it was read from; None where there is none.
    """
    name, flags = hardware.processor()
    llama = probe_llama()
    return Facts(
        modelyard=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages={package: found for package in _PACKAGES if (found := _version(package)) is not None},
        conversion_missing=missing_parts(),
        llama=llama,
        processor=name or platform.processor(),
        processor_flags=flags,
        cores=usable_cores(),
        compute_cores=compute_cores(),
        cpu_quota=hardware.cpu_quota(),
        build=build_facts(),
        is_made_by_make=Path(sys.prefix, "setup.log").exists(),
        physical_bytes=physical_bytes(),
        total_bytes=total_bytes(),
        available_bytes=available_bytes(),
        swap_bytes=hardware.swap(),
        huge_pages=hardware.huge_pages(),
        folders=tuple(_folders(config)),
        hub=_hub(config),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        address=(config.server.host, config.server.port),
        address_problem=_why_not_free(config.server.host, config.server.port),
        unsafe=tuple(_unsafe(config, file)),
        unused_devices=unused_devices(config, llama.accelerators),
        device_budgets=config.memory.devices,
        remotes=remote_facts(config),
    )


def _unsafe(config: Config, file: Path | None) -> list[UnsafeSetting]:
    try:
        keys = read_keys(config)
    except ConfigError:
        # A variable with a key may be set for the server only. The checks depend on whether there is a key, not which.
        keys = read_keys(config, dict.fromkeys((key.key_env or "" for key in config.server.keys), "0" * MIN_KEY_CHARS))
    written = [key for key in (*config.server.api_keys, *(key.key for key in config.server.keys)) if key is not None]
    has_secrets = any(not key.get_secret_value().startswith("sha256:") for key in written)
    server = config.server
    secrets = [file if has_secrets else None, server.ssl_keyfile or server.ssl_certfile]
    modes = [FileMode(path, path.stat().st_mode) for path in secrets if path is not None and exists(path)]
    return unsafe_settings(config, keys, modes)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hub(config: Config) -> HubFacts | str:
    """Return whether the hub is reachable, or why its token cannot be read."""
    try:
        token = read_token(config.hub.token_source.get_secret_value())
    except ConfigError as unreadable:
        return str(unreadable)
    return check_connectivity(token)


def _folders(config: Config) -> Iterator[Folder]:
    downloads, converted, kept = Downloads(), ConvertedModels(), config.memory.kv_folder
    yield _folder("Downloaded models", downloads.folder, lambda: [found.size_bytes for found in downloads.list()])
    yield _folder("Converted models", converted.folder, lambda: [entry.size_bytes for entry in converted.list()])
    yield _folder("Kept prompts", kept, lambda: [path.stat().st_size for path in kept.rglob("*") if path.is_file()])


def _folder(what: str, path: Path, sizes: Callable[[], list[int]]) -> Folder:
    existing = next(parent for parent in (path, *path.absolute().parents) if exists(parent))
    try:
        taken = sizes()
    except OSError:
        # A file may not be readable, or be deleted meanwhile.
        taken = []
    free_bytes = shutil.disk_usage(existing).free
    return Folder(what, path, len(taken), sum(taken), free_bytes, os.access(existing, os.R_OK | os.W_OK | os.X_OK))


def _why_not_free(host: str, port: int) -> str:
    """Return why the server could not listen on the address, bound as the server binds it; "" where it could."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""
