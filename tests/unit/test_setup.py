"""How .venv is made: what pip is asked for, how llama.cpp is compiled, and what is shown meanwhile."""

import contextlib
import io
import os
import sys
import time
from pathlib import Path

import pip_output
import pytest
import setup_venv
from lock_file import parse_lock
from setup_process import run_beside

from modelyard.system import build_facts
from modelyard.system.llama_builds import WITHOUT_AMX, BuildFacts


class Asked(list):
    def __init__(self):
        super().__init__()
        self.builds = []


def arguments_of(command):
    """What pip gets in a command of the set-up."""
    return command[command.index("off") + 1 :]


@pytest.fixture
def set_up(monkeypatch, tmp_path):
    """The set-up on a machine without a GPU, in a folder of its own; what pip is asked to install, in this order.

    What is asked of the pip that compiles, beside the others, is in ``builds``.
    """
    asked = Asked()

    @contextlib.contextmanager
    def run_beside(command, *_):
        asked.builds.append(arguments_of(command))
        yield

    for variable in ("CMAKE_ARGS", "CFLAGS", "CXXFLAGS", "MODELYARD_BACKEND", "SKBUILD_CMAKE_ARGS"):
        # Set first, so that what the set-up sets is taken back.
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr(setup_venv, "VENV", tmp_path)
    monkeypatch.setattr(setup_venv, "CMAKE_ARGS", tmp_path / "cmake-args")
    monkeypatch.setattr(setup_venv, "BACKEND", tmp_path / "backend")
    monkeypatch.setattr(setup_venv, "LOG", tmp_path / "setup.log")
    monkeypatch.setattr(setup_venv, "COMPILE_LOG", tmp_path / "compile.log")
    monkeypatch.setattr(setup_venv, "WHEELS", tmp_path / "wheels")
    monkeypatch.setattr(setup_venv, "ROOT", tmp_path)
    monkeypatch.setattr(build_facts, "build_facts", BuildFacts)
    monkeypatch.setattr(setup_venv, "make_venv", lambda: Path(sys.executable))
    monkeypatch.setattr(setup_venv, "has_node", lambda: True)
    monkeypatch.setattr(setup_venv, "run_pip", lambda _python, arguments, *_: asked.append(arguments))
    monkeypatch.setattr(setup_venv, "run_logged", lambda *_: None)
    monkeypatch.setattr(setup_venv, "run_beside", run_beside)
    return asked


def test_the_set_up_has_pip_take_nothing_but_what_is_locked(set_up):
    setup_venv.install(["demo", "convert", "dev"])
    assert len(set_up) == 4
    for arguments in set_up:
        assert "--no-deps" in arguments
        assert "--no-build-isolation" in arguments
        assert ("--require-hashes" in arguments) is not ("--no-index" in arguments)
    assert [Path(set_up[0][-1]).name, Path(set_up[2][-1]).name] == ["build.lock", "torch-cpu.lock"]
    assert not set_up.builds


def test_llama_cpp_is_built_beside_what_else_is_installed(monkeypatch, set_up):
    monkeypatch.setattr(setup_venv, "installed_version", lambda *_: "")
    at_start = []

    @contextlib.contextmanager
    def run_beside(command, *_):
        at_start.append(len(set_up))
        set_up.builds.append(arguments_of(command))
        yield
        at_start.append(len(set_up))

    monkeypatch.setattr(setup_venv, "run_beside", run_beside)
    setup_venv.install(["demo", "convert", "dev"])
    assert at_start == [1, 3]
    (build,) = set_up.builds
    assert {"--require-hashes", "--no-deps", "--no-build-isolation"} <= set(build)
    # A wheel that pip has built before is taken.
    assert "--no-cache-dir" not in build
    others = set_up[1][set_up[1].index("-r") + 1]
    names = [{pin.name for pin in parse_lock(Path(lock).read_text())} for lock in (build[-1], others)]
    assert names[0] == {"llama-cpp-python"}
    assert names[0].isdisjoint(names[1])
    assert len(names[1]) > 50
    (installed,) = [arguments for arguments in set_up if "--find-links" in arguments]
    assert "--no-index" in installed
    assert installed[-1].startswith("llama-cpp-python==")


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
    # Without CMake's arguments an upgrade may take what pip has built before.
    builds = [arguments for arguments in set_up.builds if "--no-cache-dir" in arguments]
    assert len(set_up.builds) == (compiled_with is not None or is_upgrade)
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
    assert len(set_up.builds) == 1
    assert "for CUDA (NVIDIA)" in capsys.readouterr().out
    assert (tmp_path / "cmake-args").read_text().startswith("-DGGML_CUDA=ON -DGGML_BACKEND_DL=ON")
    assert (tmp_path / "backend").read_text() == "auto cuda"
    assert os.environ["CFLAGS"].startswith("-march=native")
    setup_venv.install(["demo"])
    assert len(set_up.builds) == 1


def test_a_toolkit_that_is_missing_is_named_and_the_cpu_is_built(monkeypatch, tmp_path, set_up, capsys):
    machine = BuildFacts(gpus=frozenset({"AMD"}), package_manager="pacman")
    monkeypatch.setattr(build_facts, "build_facts", lambda: machine)
    setup_venv.install(["demo"])
    said = capsys.readouterr().out
    assert "hipcc, is not found. Install it: sudo pacman -S rocm-hip-sdk" in said
    assert "MODELYARD_BACKEND=auto make install" in said
    assert not set_up.builds
    assert (tmp_path / "backend").read_text() == "auto cpu"


def test_a_build_for_a_gpu_that_fails_ends_with_the_way_out_and_is_not_kept(monkeypatch, tmp_path, set_up):
    @contextlib.contextmanager
    def fail(_command, _name, _log, _progress, way_out):
        yield
        raise setup_venv.SetupError(f"ptxas died\n{way_out}")

    monkeypatch.setattr(setup_venv, "run_beside", fail)
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


@pytest.fixture
def compilers(monkeypatch, tmp_path):
    """What CC and CXX name: a C compiler that does not know the flags, and a C++ compiler that does."""
    for variable, body in (("CC", "exit 1"), ("CXX", "echo '# 0'")):
        program = tmp_path / variable
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        monkeypatch.setenv(variable, str(program))


def test_compilers_that_know_amx_leave_it_out(monkeypatch, compilers):
    monkeypatch.setenv("CXXFLAGS", "-O2")
    monkeypatch.setenv("CFLAGS", "-O1")
    setup_venv.rule_out_amx()
    setup_venv.rule_out_amx()
    assert os.environ["CFLAGS"] == "-O1"
    assert os.environ["CXXFLAGS"] == f"-O2 {WITHOUT_AMX}"


def test_what_llama_cpp_is_compiled_without_is_added_once_to_what_the_user_gives(monkeypatch):
    monkeypatch.setenv("SKBUILD_CMAKE_ARGS", "-DGGML_RPC=ON")
    setup_venv.spare_unused_parts()
    setup_venv.spare_unused_parts()
    given, included = os.environ["SKBUILD_CMAKE_ARGS"].split(";")
    assert given == "-DGGML_RPC=ON"
    assert included == f"-DCMAKE_PROJECT_INCLUDE={setup_venv.CMAKE_INCLUDE}"
    assert setup_venv.CMAKE_INCLUDE.is_file()


def test_a_wheel_with_kernels_for_amx_is_compiled_again(monkeypatch, tmp_path, set_up):
    library = tmp_path / "lib" / "python3.11" / "site-packages" / "llama_cpp" / "lib" / "libggml-cpu.so"
    library.parent.mkdir(parents=True)

    def run_pip(_python, arguments, *_):
        set_up.append(arguments)
        library.write_bytes(b"\0" if "--find-links" in arguments else b"\0AMX is not ready to be used!\n\0")

    monkeypatch.setattr(setup_venv, "run_pip", run_pip)
    setup_venv.install(["demo"])
    (build,) = set_up.builds
    assert {"--no-cache-dir", "--require-hashes"} <= set(build)
    assert not (tmp_path / "cmake-args").exists()


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
    assert pip_output.phase_of(line) == phase


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_in_a_log_progress_is_a_line_every_so_often():
    log = io.StringIO()
    progress = pip_output.Progress(log, clock=0)
    progress.phase = "compiling"
    for second in range(61):
        progress.tick(second)
    assert log.getvalue() == "   0:25  compiling\n   0:50  compiling\n"


def test_on_a_terminal_progress_is_one_line_that_changes_and_goes():
    terminal = Terminal()
    progress = pip_output.Progress(terminal, clock=0)
    for progress.phase, second in (("one", 1), ("two", 61)):
        progress.tick(second)
    progress.clear()
    assert terminal.getvalue() == "\r\x1b[K   0:01  one\r\x1b[K   1:01  two\r\x1b[K"


@pytest.fixture
def log(tmp_path):
    with (tmp_path / "setup.log").open("w") as log:
        yield log


def program(folder, body):
    """A program in place of Python with pip."""
    fake = folder / "python"
    fake.write_text(f"#!/bin/sh\n{body}\n")
    fake.chmod(0o755)
    return fake


def test_a_failing_pip_shows_its_last_words_the_log_and_the_way_out(tmp_path, log):
    fake = program(tmp_path, "echo '  [1/2] cc a.c'; echo 'fatal error: x.h: No space left on device'; exit 1")
    with pytest.raises(setup_venv.SetupError) as failure:
        setup_venv.run_pip(fake, ["-e", "."], log, pip_output.Progress(io.StringIO(), 0))
    message = str(failure.value)
    assert "fatal error: x.h" in message
    assert "[1/2]" not in message
    assert "[1/2]" in Path(log.name).read_text()
    assert log.name in message
    assert "The disk is full" in message


def test_what_runs_beside_the_rest_is_waited_for_and_shown(tmp_path, log):
    ready = tmp_path / "ready"
    fake = program(tmp_path, f"echo '[7/9] cc a.c'; until [ -e {ready} ]; do sleep 0.01; done; echo done")
    shown = io.StringIO()
    progress = pip_output.Progress(shown, -100)
    with run_beside([str(fake)], "The build", log, progress):
        while not progress.beside:
            time.sleep(0.01)
        progress.phase = "unpacking"
        progress.tick(0)
        ready.touch()
    assert "unpacking; compiling llama-cpp-python, step 7 of 9\n" in shown.getvalue()
    assert Path(log.name).read_text().endswith("done\n")


def test_what_fails_beside_the_rest_fails_behind_it_with_its_way_out(tmp_path, log):
    fake = program(tmp_path, "echo 'nvcc fatal'; exit 1")
    rest = []
    with (
        pytest.raises(setup_venv.SetupError, match=r"nvcc fatal\n(.|\n)*The build failed(.|\n)*For the CPU alone"),
        run_beside([str(fake)], "The build", log, pip_output.Progress(io.StringIO(), 0), "For the CPU alone: so"),
    ):
        rest.append("is done")
    assert rest


def test_a_failure_of_the_rest_ends_what_runs_beside_it(tmp_path, log):
    pid = tmp_path / "pid"
    fake = program(tmp_path, f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 100")

    def installed():
        with run_beside([str(fake)], "The build", log, pip_output.Progress(io.StringIO(), 0)):
            while not pid.exists():
                time.sleep(0.01)
            raise setup_venv.SetupError("no network")

    with pytest.raises(setup_venv.SetupError, match="no network"):
        installed()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_an_old_python_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(setup_venv, "OLDEST_PYTHON", (99, 0))
    with pytest.raises(setup_venv.SetupError, match="too old"):
        setup_venv.check_python()


def test_a_system_without_node_gets_the_locked_one_for_the_page(monkeypatch, set_up):
    monkeypatch.setattr(setup_venv, "has_node", lambda: False)
    setup_venv.install(["demo"])
    assert [Path(arguments[-1]).name for arguments in set_up[:3]] == ["build.lock", "demo.lock", "node.lock"]


def test_a_page_that_cannot_be_built_does_not_end_the_set_up(monkeypatch, set_up, capsys):
    def run_logged(_command, name, *_):
        if name == "The build of the page":
            raise setup_venv.SetupError("no network")

    monkeypatch.setattr(setup_venv, "run_logged", run_logged)
    setup_venv.install(["demo"])
    assert "make ui" in capsys.readouterr().out
