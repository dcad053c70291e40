"""How .venv is made: what pip is asked for, how llama.cpp is compiled, and what is shown meanwhile."""

import io
import os
import sys
from pathlib import Path

import pip_output
import pytest
import setup_venv
from lock_file import parse_lock

from modelyard.system import build_facts
from modelyard.system.llama_builds import WITHOUT_AMX, BuildFacts


@pytest.fixture
def set_up(monkeypatch, tmp_path):
    """The set-up on a machine without a GPU, in a folder of its own; what pip is asked for."""
    asked = []
    for variable in ("CMAKE_ARGS", "CFLAGS", "CXXFLAGS", "MODELYARD_BACKEND", "SKBUILD_CMAKE_ARGS"):
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
        library.write_bytes(b"\0" if "--force-reinstall" in arguments else b"\0AMX is not ready to be used!\n\0")

    monkeypatch.setattr(setup_venv, "run_pip", run_pip)
    setup_venv.install(["demo"])
    (build,) = [arguments for arguments in set_up if "--force-reinstall" in arguments]
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


def test_a_failing_pip_shows_its_last_words_the_log_and_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_venv, "ROOT", tmp_path)
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho '  [1/2] cc a.c'; echo 'fatal error: x.h: No space left on device'; exit 1\n")
    fake.chmod(0o755)
    log = io.StringIO()
    with pytest.raises(setup_venv.SetupError) as failure:
        setup_venv.run_pip(fake, ["-e", "."], log, pip_output.Progress(io.StringIO(), 0))
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
