"""Checks the facts about a machine and an installation, and advises what to do about them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from modelyard.doctor.device_use import check_device_use
from modelyard.doctor.devices import built_for, check_devices
from modelyard.doctor.finding import Finding
from modelyard.doctor.hub import HubFacts
from modelyard.doctor.llama import LlamaFacts
from modelyard.doctor.rebuild import rebuild
from modelyard.doctor.remote import RemoteFacts, check_remotes
from modelyard.doctor.settings import UnsafeSetting
from modelyard.system.llama_builds import Backend, BuildFacts, choose

__all__ = ["Facts", "Finding", "Folder", "check_facts", "is_usable"]

# The smallest useful model with its context takes about as much.
MIN_MEMORY_BYTES: Final = 300_000_000
LITTLE_MEMORY_BYTES: Final = 2_000_000_000
LITTLE_DISK_BYTES: Final = 10_000_000_000
# Each connection takes a file, and so does each shard of a loaded model.
FEW_OPEN_FILES: Final = 1024

# Names of processor features in Linux -> in llama.cpp. Source: Linux, arch/x86/include/asm/cpufeatures.h and
# arch/arm64/kernel/cpuinfo.c; llama.cpp, ggml_backend_cpu_get_features in ggml/src/ggml-cpu/ggml-cpu.cpp.
_FEATURES: Final[Mapping[str, str]] = {
    "avx": "AVX", "avx2": "AVX2", "f16c": "F16C", "fma": "FMA", "bmi2": "BMI2", "avx_vnni": "AVX_VNNI",
    "avx512f": "AVX512", "avx512vbmi": "AVX512_VBMI", "avx512_vnni": "AVX512_VNNI", "avx512_bf16": "AVX512_BF16",
    "asimdhp": "FP16_VA", "asimddp": "DOTPROD", "i8mm": "MATMUL_INT8", "sve": "SVE",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Folder:
    """A cache folder: how many entries it has, what they take, and what is free on its disk."""

    what: str
    path: Path
    count: int
    taken_bytes: int
    free_bytes: int
    is_writable: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a machine, an installation and a configuration.

    Attributes:
        modelyard, python, system: versions.
        packages: versions of the relevant packages that are installed.
        conversion_missing: what conversions of safetensors need and this installation lacks.
        llama: facts about llama.cpp.
        processor: name of the processor.
        processor_flags: its features as Linux names them.
        cores: processors that this process may use.
        compute_cores: cores that engines compute on, of those.
        cpu_quota: processors' worth of time that control groups leave; None: no limit.
        build: what the machine has for building llama.cpp.
        is_made_by_make: whether the environment is one that ``make install`` made.
        physical_bytes: memory of the machine.
        total_bytes, available_bytes: memory within the limits of control groups.
        swap_bytes: (total, used).
        huge_pages: setting of the kernel; "" where it is not known.
        folders: the cache folders.
        hub: whether the hub is reachable, or why its token cannot be read.
        open_files: (soft, hard) limit of this process.
        address: host and port of the server.
        address_problem: why the server cannot listen there; "" where it can.
        unsafe: unsafe settings of the configuration.
        unused_devices: accelerators that no model of the configuration may use.
        device_budgets: configured budgets of devices, by their names or numbers; see ``check_device_use``.
        remotes: the servers that have models of the configuration.
    """

    modelyard: str
    python: str
    system: str
    packages: Mapping[str, str]
    conversion_missing: tuple[str, ...]
    llama: LlamaFacts
    processor: str
    processor_flags: frozenset[str]
    cores: int
    compute_cores: int
    cpu_quota: float | None
    build: BuildFacts
    is_made_by_make: bool
    physical_bytes: int
    total_bytes: int
    available_bytes: int
    swap_bytes: tuple[int, int]
    huge_pages: str
    folders: tuple[Folder, ...]
    hub: HubFacts | str
    open_files: tuple[int, int]
    address: tuple[str, int]
    address_problem: str
    unsafe: tuple[UnsafeSetting, ...] = ()
    unused_devices: tuple[str, ...] = ()
    device_budgets: tuple[tuple[str, int | float], ...] = ()
    remotes: tuple[RemoteFacts, ...] = ()


def check_facts(facts: Facts) -> list[Finding]:
    """Return the outcomes of all checks, in the order in which they are shown."""
    hub_client = facts.packages.get("huggingface_hub", "missing")
    return [
        Finding(
            "versions",
            "Modelyard",
            f"{facts.modelyard}, Python {facts.python}, huggingface_hub {hub_client}, {facts.system}",
            facts={"modelyard": facts.modelyard, "python": facts.python, "packages": dict(facts.packages)},
        ),
        _llama(facts),
        _processor(facts),
        check_devices(
            facts.llama,
            facts.build,
            facts.packages.get("llama-cpp-python", ""),
            is_made_by_make=facts.is_made_by_make,
            without_amx=_is_amx_left_out(facts),
        ),
        *check_device_use(facts.llama, facts.unused_devices, facts.device_budgets),
        _cores(facts),
        _memory(facts),
        _control_group(facts),
        *_swap(facts),
        *_huge_pages(facts),
        *(_folder(folder) for folder in facts.folders),
        _hub(facts.hub),
        *_token(facts.hub),
        *check_remotes(facts.remotes),
        _conversion(facts),
        _open_files(facts),
        _address(facts),
        *_security(facts),
    ]


def is_usable(findings: list[Finding]) -> bool:
    """Whether models can be served."""
    return all(finding.verdict != "problem" for finding in findings)


def _llama(facts: Facts) -> Finding:
    package = facts.packages.get("llama-cpp-python")
    known = {"llama_cpp_python": package, "version": facts.llama.version or None}
    if package is None:
        value, command = "llama-cpp-python is not installed", "pip install llama-cpp-python"
        return Finding("llama_cpp", "llama.cpp", value, "problem", "Install it.", known, command)
    if facts.llama.problem:
        why = "It was built for another processor. " if "SIGILL" in facts.llama.problem else ""
        value = f"llama-cpp-python {package}: {facts.llama.problem}"
        advice = f"{why}Build it on this machine."
        return Finding("llama_cpp", "llama.cpp", value, "problem", advice, known, _rebuild(facts))
    value = f"{facts.llama.version}, llama-cpp-python {package}"
    return Finding("llama_cpp", "llama.cpp", value, facts=known)


def _processor(facts: Facts) -> Finding:
    has = {name for flag, name in _FEATURES.items() if flag in facts.processor_flags}
    unused = sorted(has - set(facts.llama.features))
    known = {"model": facts.processor, "used": list(facts.llama.features), "unused": unused}
    name = facts.processor or "unknown"
    if facts.llama.problem:
        return Finding("cpu_features", "Processor", name, facts=known | {"unused": []})
    used = ", ".join(feature for feature in facts.llama.features if feature in set(_FEATURES.values())) or "none known"
    if "AMX_INT8" in facts.llama.features:
        return Finding(
            "cpu_features",
            "Processor",
            f"{name}; llama.cpp was compiled with kernels for AMX, which crash on some models",
            "note",
            "They are not used, and neither are weights that are packed for kernels: prompts are computed slower. "
            "Build llama.cpp without them.",
            known,
            _rebuild(facts),
        )
    if not unused:
        return Finding("cpu_features", "Processor", f"{name}; llama.cpp uses {used}", facts=known)
    return Finding(
        "cpu_features",
        "Processor",
        f"{name}; llama.cpp uses {used}, but not {', '.join(unused)}",
        "note",
        "Models answer faster with a llama.cpp that is built on this machine.",
        known,
        _rebuild(facts),
    )


def _cores(facts: Facts) -> Finding:
    quota = facts.cpu_quota
    known = {"cores": facts.cores, "compute_cores": facts.compute_cores, "quota": quota}
    if quota is None or quota >= facts.cores:
        value = str(facts.cores)
        if facts.compute_cores < facts.cores:
            value += f", of which models compute on {facts.compute_cores}: the others share a core, or are slower"
        return Finding("cores", "Cores", value, facts=known)
    return Finding(
        "cores",
        "Cores",
        f"{facts.cores}, but a control group leaves the time of {quota:.1f}",
        "note",
        "Threads that are stopped in the middle of a step make all others wait. Give the process whole cores instead "
        "of a quota (docker run --cpuset-cpus, or taskset).",
        known,
    )


def _memory(facts: Facts) -> Finding:
    available, total = facts.available_bytes, facts.total_bytes
    value = f"{available / 1e9:.1f} of {total / 1e9:.1f} GB available"
    known = {"available_bytes": available, "total_bytes": total, "physical_bytes": facts.physical_bytes}
    if available < MIN_MEMORY_BYTES:
        advice = "No model fits. End other programs, or give the machine or its control group more memory."
        return Finding("memory", "Memory", value, "problem", advice, known)
    if available < LITTLE_MEMORY_BYTES:
        advice = 'Only small models fit. `modelyard resolve MODEL` shows what one takes; quant = "auto" chooses.'
        return Finding("memory", "Memory", value, "note", advice, known)
    return Finding("memory", "Memory", value, facts=known)


def _control_group(facts: Facts) -> Finding:
    is_limited = facts.total_bytes < facts.physical_bytes
    value = "no memory limit"
    if is_limited:
        value = f"{facts.total_bytes / 1e9:.1f} of the machine's {facts.physical_bytes / 1e9:.1f} GB"
    known = {"memory_limit_bytes": facts.total_bytes if is_limited else None}
    return Finding("control_group", "Control group", value, facts=known)


def _swap(facts: Facts) -> Iterator[Finding]:
    total, used = facts.swap_bytes
    known = {"total_bytes": total, "used_bytes": used}
    if not total:
        yield Finding("swap", "Swap", "none", facts=known)
    elif used > total // 2:
        value = f"{used / 1e9:.1f} of {total / 1e9:.1f} GB used"
        yield Finding("swap", "Swap", value, "note", "Weights that are swapped out answer slowly: lower budget.", known)
    else:
        yield Finding("swap", "Swap", f"{used / 1e9:.1f} of {total / 1e9:.1f} GB used", facts=known)


def _huge_pages(facts: Facts) -> Iterator[Finding]:
    known = {"setting": facts.huge_pages}
    match facts.huge_pages:
        case "always" | "madvise":
            value = "used" if facts.huge_pages == "always" else "used where Modelyard asks for them"
            yield Finding("huge_pages", "Huge pages", value, facts=known)
        case "never":
            command = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
            yield Finding("huge_pages", "Huge pages", "switched off", "note", "Loads take longer.", known, command)


def _folder(folder: Folder) -> Finding:
    name = folder.what.lower().replace(" ", "_")
    taken = f"{folder.count}, {folder.taken_bytes / 1e9:.1f} GB, " if folder.count else "none "
    value = f"{taken}in {folder.path}; {folder.free_bytes / 1e9:.1f} GB are free"
    known = {
        "path": str(folder.path),
        "count": folder.count,
        "taken_bytes": folder.taken_bytes,
        "free_bytes": folder.free_bytes,
        "writable": folder.is_writable,
    }
    if not folder.is_writable:
        advice = "The folder cannot be written: change its permissions, or set HF_HOME and XDG_CACHE_HOME to others."
        return Finding(name, folder.what, value, "note", advice, known)
    if folder.free_bytes < LITTLE_DISK_BYTES:
        advice = "Large models do not fit. `modelyard cache list` shows what is there, and `cache delete` frees it."
        return Finding(name, folder.what, value, "note", advice, known)
    return Finding(name, folder.what, value, facts=known)


def _hub(hub: HubFacts | str) -> Finding:
    if isinstance(hub, str):
        return Finding("hub", "Hub", hub, "note", 'Correct token_source, or set it to "none".')
    known = {"endpoint": hub.endpoint, "state": hub.state}
    match hub.state:
        case "reachable":
            return Finding("hub", "Hub", f"{hub.endpoint} is reachable", facts=known)
        case "offline":
            advice = "Only models that are on this machine are served. Unset HF_HUB_OFFLINE to download others."
            return Finding("hub", "Hub", "offline mode is on", "note", advice, known)
        case _:
            advice = "Check the network and HTTPS_PROXY. Models that are on this machine are served all the same."
            return Finding("hub", "Hub", f"{hub.endpoint} cannot be reached: {hub.detail}", "note", advice, known)


def _token(hub: HubFacts | str) -> Iterator[Finding]:
    if isinstance(hub, HubFacts):
        known = {"found": hub.has_token}
        value = "found" if hub.has_token else "none; gated and private repositories need one (`hf auth login`)"
        yield Finding("token", "Token", value, facts=known)


def _conversion(facts: Facts) -> Finding:
    missing = list(facts.conversion_missing)
    known = {"available": not missing, "missing": missing}
    if missing:
        advice = "Only GGUF is served. What safetensors are converted with takes about 1 GB, most of it torch."
        value = f"{', '.join(missing)} not installed"
        command = "pip install 'modelyard[convert]' && modelyard install-converter"
        return Finding("conversion", "Conversion", value, "note", advice, known, command)
    value = f"of safetensors, with torch {facts.packages.get('torch', '?')}"
    return Finding("conversion", "Conversion", value, facts=known)


def _open_files(facts: Facts) -> Finding:
    soft, hard = facts.open_files
    known = {"soft": soft, "hard": hard}
    if 0 <= soft < FEW_OPEN_FILES:
        command = f"ulimit -n {hard if hard > 0 else 65536}"
        return Finding(
            "open_files", "Open files", f"at most {soft}", "note", "Every connection takes one.", known, command
        )
    return Finding("open_files", "Open files", f"at most {soft:,}" if soft >= 0 else "no limit", facts=known)


def _address(facts: Facts) -> Finding:
    host, port = facts.address
    known = {"host": host, "port": port, "free": not facts.address_problem}
    if facts.address_problem:
        advice = "Perhaps Modelyard runs already. Else choose another with --host and --port, or under [server]."
        return Finding("port", "Port", f"{host}:{port}: {facts.address_problem}", "note", advice, known)
    return Finding("port", "Port", f"{host}:{port} is free", facts=known)


def _security(facts: Facts) -> Iterator[Finding]:
    if not facts.unsafe:
        yield Finding("security", "Security", "no setting is unsafe", facts={"settings": ""})
    for unsafe in facts.unsafe:
        yield Finding(
            unsafe.name, "Security", f"{unsafe.settings}: {unsafe.what}", "note", unsafe.advice, asdict(unsafe)
        )


def _rebuild(facts: Facts) -> str:
    """Return the command that builds llama.cpp on this machine, for what it is built for now if that can be told."""
    built: Backend = next(iter(built_for(facts.llama)), "cpu")
    backend = choose(facts.build).backend if facts.llama.problem else built
    return rebuild(
        backend, facts.build, facts.packages.get("llama-cpp-python", ""), without_amx=_is_amx_left_out(facts)
    )


def _is_amx_left_out(facts: Facts) -> bool:
    """Whether the compiler would build llama.cpp with its kernels for AMX, which crash, and can leave them out."""
    has_amx = "amx_int8" in facts.processor_flags or "AMX_INT8" in facts.llama.features
    return has_amx and facts.build.knows_amx
