"""Models that are named by their hub id, with a local cache and no network."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub import FileRequest, Hub, ModelFiles, Stores, resolve
from support.gguf_writer import shards, tiny_model, write

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# An address on which no server listens.
NO_HUB = "http://127.0.0.1:9"
SAFETENSORS = struct.pack("<Q", 2) + b"{}"


def files(source: str, quant: str | None = None, *, hub_cache: Path) -> ModelFiles:
    return resolve(FileRequest(source, quant=quant), Stores(Hub(hub_cache, endpoint=NO_HUB)))


def refusal(source: str, *, hub_cache: Path) -> str:
    with pytest.raises(UnusableModel) as refused:
        files(source, hub_cache=hub_cache)
    return str(refused.value)


def cached(cache: Path, repo: str, contents: dict[str, bytes], revision: str = "main") -> Path:
    """A repository in a Hugging Face cache: files are links to blobs, branches are files with a commit."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    for number, (name, content) in enumerate(contents.items()):
        blob = write(root / "blobs" / f"blob{number}", content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blob)
    write(root / "refs" / revision, COMMIT.encode())
    return snapshot


def test_a_repository_in_the_cache_is_found(tmp_path: Path):
    snapshot = cached(tmp_path, "org/tiny-GGUF", {"tiny-Q4_K_M.gguf": tiny_model(), "README.md": b""})
    found = files("org/tiny-GGUF", "4", hub_cache=tmp_path)
    assert found.paths == (snapshot / "tiny-Q4_K_M.gguf",)


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/1"])
def test_a_revision_may_be_named(tmp_path: Path, revision: str):
    snapshot = cached(tmp_path, "org/tiny", {"tiny.gguf": tiny_model()}, revision)
    assert files(f"org/tiny@{revision}", hub_cache=tmp_path).paths == (snapshot / "tiny.gguf",)
    assert files(f"org/tiny@{COMMIT}", hub_cache=tmp_path).paths == (snapshot / "tiny.gguf",)
    assert refusal("org/tiny", hub_cache=tmp_path).startswith(f"'org/tiny' cannot be fetched from {NO_HUB}: ")


def test_shards_in_the_cache_are_found_by_their_links(tmp_path: Path):
    parts = {path.name: path.read_bytes() for path in shards(tmp_path / "source")}
    cached(tmp_path / "cache", "org/tiny", parts)
    assert [path.name for path in files("org/tiny", hub_cache=tmp_path / "cache").paths] == sorted(parts)


def test_what_is_neither_in_the_cache_nor_to_be_had_says_what_to_check(tmp_path: Path):
    message = refusal("org/tiny@v2", hub_cache=tmp_path)
    assert message.startswith(f"'org/tiny' cannot be fetched from {NO_HUB}: ")
    assert message.endswith(
        "Check the network, the proxy settings and the free disk space; with HF_HUB_OFFLINE=1 the cache alone is used."
    )


def test_weights_without_their_configuration_are_no_checkpoint(tmp_path: Path):
    cached(tmp_path, "org/tiny", {"model.safetensors": SAFETENSORS})
    assert refusal("org/tiny", hub_cache=tmp_path).startswith("'org/tiny' has safetensors weights, but no config.json")


def test_an_impossible_id_is_refused(tmp_path: Path):
    assert refusal("org/na--me", hub_cache=tmp_path).startswith("'org/na--me' is not a hub id: ")


def test_a_folder_of_that_name_comes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    local = write(tmp_path / "org" / "tiny" / "local.gguf", tiny_model())
    cached(tmp_path / "cache", "org/tiny", {"cached.gguf": tiny_model()})
    assert files("org/tiny", hub_cache=tmp_path / "cache").paths == (local,)


def test_the_cache_is_where_the_environment_says(tmp_path: Path):
    """In a process of its own: huggingface_hub reads its environment once, when it is imported."""
    snapshot = cached(tmp_path, "org/tiny", {"tiny.gguf": tiny_model()})
    program = (
        "import sys; from modelyard.hub import FileRequest, resolve; "
        "assert 'huggingface_hub' not in sys.modules; "
        "print(resolve(FileRequest('org/tiny')).paths[0])"
    )
    settings = {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment = os.environ | settings
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.strip() == str(snapshot / "tiny.gguf")
