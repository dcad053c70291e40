"""What `resolve`, `cache` and `doctor` say, as a user runs them, with a hub on loopback and caches of their own."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from modelyard.cli import main
from modelyard.hub import ConvertedModels, Downloads, FileRequest, Hub, Stores, resolve
from support.gguf_writer import U32, tiny_model
from support.hub import LoopbackHub, serving_hub
from support.odd_server import free_port, http_answer, odd_server

WAIT_S = 60.0
TOKEN = "hf_of_this_test"
Q4_K_M, Q8_0 = 15, 7
# Behind the header, so that who downloads it is seen.
TAIL = bytes(12_000_000)


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with serving_hub() as running:
        yield running


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


class Shell:
    """Runs `modelyard` where nothing is of the user who runs the tests: in this process, where that makes no difference
    to what is tested, because it is faster."""

    def __init__(
        self, hub: LoopbackHub, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.home = home
        self.cache = home / "hf" / "hub"
        self.converted = ConvertedModels(home / "cache" / "modelyard" / "converted")
        self._monkeypatch, self._capsys = monkeypatch, capsys
        # huggingface_hub reads its environment once, when it is imported.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(self.cache))
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(home / "hf" / "token"))
        monkeypatch.setattr("modelyard.yard.from_config.Hub", partial(Hub, endpoint=hub.url))
        settings = {
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": hub.url,
            "XDG_CACHE_HOME": str(home / "cache"),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "COLUMNS": "80",
            "TERM": "dumb",
        }
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)

    def run(self, *args: str, text: str = "") -> Done:
        """The command in this process."""
        self._monkeypatch.setattr(sys, "argv", ["modelyard", *args])
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = self._capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    def out(self, *args: str) -> str:
        """What it prints where all is well."""
        done = self.run(*args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def spawn(self, *args: str, **environment: str) -> Done:
        """The command in a process of its own, where its environment counts."""
        done = subprocess.run(
            [sys.executable, "-m", "modelyard", *args],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def on_terminal(self, *args: str, **environment: str) -> list[str]:
        """Lines as a terminal of 80 columns gets them."""
        ours, theirs = pty.openpty()
        command, env = [sys.executable, "-m", "modelyard", *args], os.environ | environment
        with subprocess.Popen(command, env=env, stdout=theirs, stderr=theirs, stdin=theirs) as process:
            os.close(theirs)
            said = b""
            while True:
                try:
                    part = os.read(ours, 1 << 16)
                except OSError:  # how Linux says that the other side has closed
                    break
                if not part:
                    break
                said += part
            process.wait(WAIT_S)
        os.close(ours)
        return re.sub(r"\x1b\[[0-9;]*m", "", said.decode()).splitlines()


@pytest.fixture
def shell(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    return Shell(hub, tmp_path, monkeypatch, capsys)


def model(file_type: int) -> bytes:
    return tiny_model({"general.file_type": (U32, file_type)}) + TAIL


def published(hub: LoopbackHub) -> None:
    hub.add("org/tiny", {"model.safetensors": TAIL, "config.json": b"{}", "tokenizer.json": b"{}"})
    files: dict[str, Any] = {"tiny-Q4_K_M.gguf": model(Q4_K_M), "tiny-Q8_0.gguf": model(Q8_0), "README.md": b"#"}
    hub.add("org/tiny-GGUF", files, base_models=["org/tiny"])


# resolve


def test_resolve_says_what_why_where_and_how_much_and_downloads_nothing(hub: LoopbackHub, shell: Shell):
    published(hub)
    said = " ".join(shell.out("resolve", "org/tiny", "--quant", "4").split())
    commit = hub.repositories["org/tiny-GGUF"].commit[:12]
    assert "tiny-Q4_K_M.gguf: Q4_K_M is the preferred type of 4 bits there." in said
    assert "tiny-Q4_K_M.gguf 12 MB to be downloaded" in said
    assert f"From: org/tiny-GGUF, commit {commit}" in said
    assert "Weights: Q4_K_M Download: 12 MB Conversion: none" in said
    assert re.search(r"Memory: .* context and buffers .*, which fits the budget of", said)
    assert not list(shell.home.rglob("*.gguf"))
    # The header is read where it lies, once.
    assert len(hub.downloads()) == 1
    assert hub.sent_bytes < len(TAIL) / 2


def test_resolve_tells_programs_the_same_and_what_is_here(hub: LoopbackHub, shell: Shell):
    published(hub)
    resolve(FileRequest("org/tiny-GGUF", quant="8"), Stores(Hub(shell.cache, endpoint=hub.url)))
    facts = json.loads(shell.out("resolve", "org/tiny-GGUF", "--quant", "8", "--json"))
    size = len(model(Q8_0))
    assert facts["files"] == [{"name": "tiny-Q8_0.gguf", "size_bytes": size, "is_here": True}]
    assert (facts["origin"], facts["quantization"], facts["download_bytes"]) == ("org/tiny-GGUF", "Q8_0", 0)
    assert facts["commit"] == hub.repositories["org/tiny-GGUF"].commit
    assert 0 < facts["weights_bytes"] + facts["context_bytes"] <= facts["budget_bytes"]


def test_resolve_takes_a_file_by_name_and_a_format(hub: LoopbackHub, shell: Shell):
    published(hub)
    facts = json.loads(shell.out("resolve", "org/tiny-GGUF", "--quantized-file", "tiny-Q8_0.gguf", "--json"))
    assert facts["reasons"] == ["tiny-Q8_0.gguf: it is named by quantized_file."]
    wrong = shell.run("resolve", "org/tiny-GGUF", "--quantized-file", "tiny-Q8_0.gguf", "--quant", "8")
    assert wrong.returncode == 2
    assert "--quantized-file and --quant exclude each other" in wrong.stderr
    plain = shell.run("resolve", "org/tiny-GGUF", "--format", "plain")
    assert plain.returncode == 4
    assert "has no weights of the format 'plain'. Remove --format" in plain.stderr


def test_resolve_says_why_a_repository_cannot_be_had(hub: LoopbackHub, shell: Shell):
    hub.add("org/gated", {"tiny.gguf": model(Q8_0)}, gated=True, token=TOKEN)
    refused = shell.run("resolve", "org/gated")
    assert refused.returncode == 4
    assert f"Accept them at {hub.url}/org/gated" in refused.stderr
    opened = shell.run("resolve", "org/gated", "--token-source", f"literal:{TOKEN}")
    assert opened.returncode == 0
    assert TOKEN not in opened.stdout + opened.stderr


def test_what_is_said_fits_a_terminal(hub: LoopbackHub, shell: Shell):
    name = "a-model-whose-name-is-longer-than-anybody-would-like-it-to-be-on-a-terminal-Q8_0.gguf"
    hub.add("org/long-GGUF", {name: model(Q8_0)})
    for args in (("resolve", "org/long-GGUF"), ("doctor",)):
        lines = shell.on_terminal(*args)
        assert len(lines) > 5
        # What is to be pasted is not wrapped, and a name is not cut.
        assert max(len(line) for line in lines if not line.startswith(("CMAKE_ARGS", "CFLAGS")) and line != name) <= 80
    assert name in shell.on_terminal("resolve", "org/long-GGUF")


def test_a_download_is_shown_on_a_terminal_as_it_goes_on(hub: LoopbackHub, shell: Shell):
    hub.add("org/tiny-GGUF", {"tiny-Q8_0.gguf": model(Q8_0)})
    out = shell.home / "made.gguf"
    lines = shell.on_terminal("quantize", "-m", "org/tiny-GGUF", "-o", str(out), TERM="xterm")
    assert re.search(r"Downloading +\S+ +\d+%", "\n".join(lines))
    assert out.read_bytes() == model(Q8_0)


# cache


def convert(shell: Shell, key: str, name: str, source: str, size: int) -> None:
    with shell.converted.locked(key, lambda _: True) as folder:
        made = folder / "full.partial"
        made.write_bytes(bytes(size))
        shell.converted.complete(folder, made, name=name, source=source, label="Q4_K_M")


def download(hub: LoopbackHub, shell: Shell) -> None:
    published(hub)
    resolve(FileRequest("org/tiny-GGUF", quant="8"), Stores(Hub(shell.cache, endpoint=hub.url)))


def listed(shell: Shell) -> dict[str, Any]:
    return {row["name"]: row for row in json.loads(shell.out("cache", "list", "--json"))}


def test_the_cache_lists_what_was_downloaded_and_what_was_converted(hub: LoopbackHub, shell: Shell):
    assert shell.out("cache", "list") == "Nothing is in the cache.\n"
    download(hub, shell)
    convert(shell, "0" * 24, "tiny-Q4_K_M.gguf", "org/tiny", 2_000_000)
    os.utime(shell.converted.folder / ("0" * 24) / "entry.json", (1_700_000_000, 1_700_000_000))
    rows = listed(shell)
    assert list(rows) == ["org/tiny-GGUF", "tiny-Q4_K_M.gguf"]
    assert rows["org/tiny-GGUF"]["size_bytes"] == len(model(Q8_0))
    assert rows["tiny-Q4_K_M.gguf"] == {
        "name": "tiny-Q4_K_M.gguf",
        "what": "converted from org/tiny",
        "size_bytes": 2_000_000,
        "used_at": 1_700_000_000,
    }
    said = shell.out("cache", "list")
    assert re.search(r"tiny-Q4_K_M\.gguf +2 MB +2023-11-1\d \d\d:\d\d +converted from org/tiny", said)
    assert "2 models, 14 MB. Delete one: modelyard cache delete MODEL" in said


def test_what_is_deleted_is_gone_and_nothing_else(hub: LoopbackHub, shell: Shell):
    download(hub, shell)
    convert(shell, "0" * 24, "tiny-Q4_K_M.gguf", "org/tiny", 2_000_000)
    assert shell.out("cache", "delete", "org/tiny-GGUF", "--yes") == "Deleted org/tiny-GGUF: 12 MB are free again.\n"
    assert list(listed(shell)) == ["tiny-Q4_K_M.gguf"]
    assert not list(shell.cache.rglob("*.gguf"))
    kept = shell.run("cache", "delete", "tiny-Q4_K_M.gguf", text="n\n")
    assert kept.returncode == 1
    assert "Delete tiny-Q4_K_M.gguf (2 MB, converted from org/tiny)?" in kept.stdout
    assert shell.run("cache", "delete", "tiny-Q4_K_M.gguf", text="y\n").returncode == 0
    assert shell.converted.list() == []


def test_a_name_that_is_unknown_or_not_the_only_one_deletes_nothing(shell: Shell):
    for key, source in (("a" * 24, "org/tiny@v1"), ("b" * 24, "org/tiny@v2")):
        convert(shell, key, "tiny-Q4_K_M.gguf", source, 1000)
    both = {f"{'a' * 24}/tiny-Q4_K_M.gguf", f"{'b' * 24}/tiny-Q4_K_M.gguf"}
    assert set(listed(shell)) == both
    ambiguous = shell.run("cache", "delete", "tiny-Q4_K_M.gguf", "--yes")
    assert ambiguous.returncode == 4
    assert "'tiny-Q4_K_M.gguf' is 2 models: " in ambiguous.stderr
    unknown = shell.run("cache", "delete", "org/other", "--yes")
    assert unknown.returncode == 4
    assert "'org/other' is not in the cache. There is: " in unknown.stderr
    assert len(shell.converted.list()) == 2
    shell.out("cache", "delete", f"{'a' * 24}/tiny-Q4_K_M.gguf", "--yes")
    assert [entry.source for entry in shell.converted.list()] == ["org/tiny@v2"]


def test_what_somebody_is_making_or_downloading_is_not_deleted(hub: LoopbackHub, shell: Shell):
    download(hub, shell)
    convert(shell, "0" * 24, "tiny-Q4_K_M.gguf", "org/tiny", 1000)

    def refused(name: str) -> str:
        done = shell.run("cache", "delete", name, "--yes")
        assert done.returncode == 4
        return done.stderr

    (lock,) = (shell.cache / ".locks" / "models--org--tiny-GGUF").glob("*.lock")
    with FileLock(lock):
        assert "'org/tiny-GGUF' is being downloaded by another process. Try again later." in refused("org/tiny-GGUF")
    with shell.converted.locked("0" * 24, lambda _: True):
        assert "tiny-Q4_K_M.gguf is being made by another process. Try again later." in refused("tiny-Q4_K_M.gguf")
    assert set(listed(shell)) == {"org/tiny-GGUF", "tiny-Q4_K_M.gguf"}


def test_what_a_broken_off_download_left_is_shown_and_goes(hub: LoopbackHub, shell: Shell):
    download(hub, shell)
    (blobs,) = shell.cache.glob("models--org--tiny-GGUF/blobs")
    (blobs / "feed.incomplete").write_bytes(bytes(3_000_000))
    alone = shell.cache / "models--org--other" / "blobs" / "beef.incomplete"
    alone.parent.mkdir(parents=True)
    alone.write_bytes(bytes(5_000_000))
    rows = listed(shell)
    assert rows["org/tiny-GGUF"]["size_bytes"] == len(model(Q8_0)) + 3_000_000
    assert rows["org/tiny-GGUF"]["what"] == "downloaded, and the rest of a broken-off download"
    assert (rows["org/other"]["size_bytes"], rows["org/other"]["what"]) == (5_000_000, "broken-off download")
    for repo in rows:
        shell.out("cache", "delete", repo, "--yes")
    assert listed(shell) == {}
    assert not list(shell.cache.glob("models--*"))


def test_data_sets_in_the_same_cache_are_nobodys_models(hub: LoopbackHub, shell: Shell):
    download(hub, shell)
    (shell.cache / "models--org--tiny-GGUF").rename(shell.cache / "datasets--org--tiny-GGUF")
    assert listed(shell) == {}
    assert shell.run("cache", "delete", "org/tiny-GGUF", "--yes").returncode == 4
    assert (shell.cache / "datasets--org--tiny-GGUF" / "snapshots").is_dir()


def test_what_is_half_made_is_not_in_the_list(shell: Shell):
    with shell.converted.locked("0" * 24, lambda _: True) as folder:
        (folder / "full.partial").write_bytes(bytes(1000))
        assert shell.out("cache", "list") == "Nothing is in the cache.\n"


# doctor


def findings(said: str) -> dict[str, Any]:
    return {finding["name"]: finding for finding in json.loads(said)["findings"]}


def test_doctor_tells_programs_what_it_found_and_never_the_token(hub: LoopbackHub, shell: Shell):
    download(hub, shell)
    done = shell.spawn("doctor", "--json", HF_TOKEN=TOKEN)
    assert done.returncode == 0
    assert json.loads(done.stdout)["usable"] is True
    found = findings(done.stdout)
    assert found["hub"]["facts"] == {"endpoint": hub.url, "state": "reachable"}
    assert found["token"]["facts"] == {"found": True}
    assert TOKEN not in done.stdout + done.stderr
    assert found["downloaded_models"]["facts"]["count"] == 1
    assert found["downloaded_models"]["facts"]["taken_bytes"] == len(model(Q8_0))
    assert found["memory"]["facts"]["available_bytes"] > 0
    assert any(device["kind"] == "cpu" for device in found["devices"]["facts"]["devices"])


def test_doctor_works_where_llama_cpp_does_not(shell: Shell, tmp_path: Path):
    broken = tmp_path / "broken" / "llama_cpp"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("from .llama_cpp import *\n")
    (broken / "llama_cpp.py").write_text("raise OSError('libllama.so: cannot open shared object file')\n")
    path = os.pathsep.join([str(broken.parent), *sys.path])
    done = shell.spawn("doctor", PYTHONPATH=path)
    assert done.returncode == 1
    assert "It cannot be loaded: libllama.so: cannot open shared object file" in done.stdout
    assert "No model can be served until the problem is solved." in done.stdout
    assert "pip install" in done.stdout


def test_layers_on_the_command_line_are_those_of_the_configuration(shell: Shell):
    for written, problem in (
        ("0:x", "not '0:x'"),
        ("15:9", "--device-layers or n_gpu_layers gives "),
        ("600", "not '600'"),
    ):
        # In this process, which is not to become the supervisor of another.
        refused = shell.run("serve", "-m", "org/tiny", "--port", "0", "--no-supervisor", "-n", written)
        assert refused.returncode == 2
        assert problem in refused.stderr
    # A server that has ended, in this process, has left Ctrl-C to others.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    both = shell.run("run", "-m", "org/tiny", "--cpu", "-n", "4", "-i", "Hi")
    assert "--cpu keeps all models on the CPU" in both.stderr


def test_a_search_shows_repositories_with_their_quantisations_and_what_fits(shell: Shell, hub: LoopbackHub) -> None:
    published(hub)
    hub.add("org/huge-tiny", {"a-Q8_0-00001-of-00002.gguf": b"", "a-Q8_0-00002-of-00002.gguf": b""})
    hub.repositories["org/huge-tiny"].size = lambda _: 10**15  # type: ignore[method-assign]
    found = {each["repository"]: each for each in json.loads(shell.out("search", "tiny", "--json"))}
    assert set(found) == {"org/tiny-GGUF", "org/huge-tiny"}
    assert [(each["name"], each["fits"]) for each in found["org/tiny-GGUF"]["quantizations"]] == [
        ("Q4_K_M", True),
        ("Q8_0", True),
    ]
    (huge,) = found["org/huge-tiny"]["quantizations"]
    assert (huge["fits"], huge["size_bytes"], len(huge["files"])) == (False, 2 * 10**15, 2)
    said = shell.out("search", "tiny", "--limit", "2")
    assert "modelyard run org/tiny-GGUF" in said
    assert shell.out("search", "nobody-has-this") == "The hub has no model in GGUF for 'nobody-has-this'.\n"


def test_a_search_without_a_network_ends_at_its_first_attempt(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with free_port() as port:
        monkeypatch.setattr("modelyard.yard.from_config.Hub", partial(Hub, endpoint=f"http://127.0.0.1:{port}"))
        monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it tries again"))
        done = shell.run("search", "tiny")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"error: http://127.0.0.1:{port} cannot be searched: ")
    assert "Retrying" not in done.stderr


def test_what_is_no_hub_answers_no_search(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with odd_server(http_answer("200 OK", "text/html", "<title>Log in</title>")) as url:
        monkeypatch.setattr("modelyard.yard.from_config.Hub", partial(Hub, endpoint=url))
        assert "answers a search with no list of models" in shell.run("search", "tiny").stderr


def test_one_quantisation_of_a_repository_is_deleted_and_the_other_stays(shell: Shell, hub: LoopbackHub) -> None:
    published(hub)
    shell.out("pull", "org/tiny-GGUF:q4_k_m")
    shell.out("pull", "org/tiny-GGUF:q8_0")
    said = shell.out("rm", "org/tiny-GGUF:q8_0", "--yes")
    assert said == "Deleted tiny-Q8_0.gguf of org/tiny-GGUF: 12 MB are free again.\n"
    assert Downloads(shell.cache).files("org/tiny-GGUF") == ["tiny-Q4_K_M.gguf"]
    assert shell.run("rm", "org/tiny-GGUF:q8_0", "--yes").returncode == 4
    assert shell.out("rm", "hf.co/org/tiny-GGUF", "--yes").startswith("Deleted org/tiny-GGUF")
    assert Downloads(shell.cache).list() == []


def test_models_of_ollama_are_not_deleted(shell: Shell) -> None:
    refused = shell.run("rm", "ollama:llama3.2", "--yes")
    assert refused.returncode == 4
    assert "ollama rm llama3.2" in refused.stderr
