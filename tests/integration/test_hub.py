"""Models that are named by their hub id, with the real huggingface_hub client and a hub on loopback."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import RepositoryUnavailable, UnusableModel
from modelyard.hub import (
    ConvertedModels,
    FileRequest,
    Hub,
    ModelFiles,
    Progress,
    Stores,
    estimate_files,
    plan_files,
    resolve,
)
from support.gguf_writer import STR, U32, shards, tiny_model
from support.hub import LoopbackHub, serving_hub

SIBLINGS = ("{repo}-GGUF", "quantizer/{organisation}_{name}-GGUF")
Q4_K_M, Q8_0, F16 = 15, 7, 1


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with serving_hub() as running:
        yield running


@pytest.fixture
def stores(hub: LoopbackHub, tmp_path: Path) -> Stores:
    return Stores(Hub(tmp_path / "cache", endpoint=hub.url), ConvertedModels(tmp_path / "converted"))


def model(file_type: int) -> bytes:
    return tiny_model({"general.file_type": (U32, file_type)})


def wanted(source: str, **other: Any) -> FileRequest:
    return FileRequest(source, mirror_repos=SIBLINGS, **other)


def refusal(source: str, stores: Stores, **other: Any) -> UnusableModel:
    with pytest.raises(UnusableModel) as refused:
        resolve(wanted(source, **other), stores)
    return refused.value


def names(files: ModelFiles) -> list[str]:
    return [path.name for path in files.paths]


def test_of_a_repository_only_the_file_that_is_meant_is_downloaded(hub: LoopbackHub, stores: Stores):
    hub.add("org/tiny-GGUF", {"tiny-Q4_K_M.gguf": model(Q4_K_M), "tiny-Q8_0.gguf": model(Q8_0), "README.md": b"#"})
    files = resolve(wanted("org/tiny-GGUF", quant="8"), stores)
    assert names(files) == ["tiny-Q8_0.gguf"]
    assert files.reason == "tiny-Q8_0.gguf: Q8_0 is the preferred type of 8 bits there."
    assert {path.rsplit("/")[-1] for path in hub.downloads()} == {"tiny-Q8_0.gguf"}


def test_what_was_downloaded_is_not_downloaded_again(hub: LoopbackHub, stores: Stores):
    hub.add("org/tiny", {"tiny.gguf": model(Q8_0)})
    first = resolve(wanted("org/tiny"), stores)
    hub.requests.clear()
    assert resolve(wanted("org/tiny"), stores).paths == first.paths
    assert hub.downloads() == []


def test_a_model_is_served_from_the_cache_while_the_hub_is_away(
    hub: LoopbackHub, stores: Stores, tmp_path: Path, caplog
):
    hub.add("org/tiny", {"tiny.gguf": model(Q8_0)})
    first = resolve(wanted("org/tiny"), stores)
    away = Stores(Hub(tmp_path / "cache", endpoint="http://127.0.0.1:9"), stores.converted)
    with caplog.at_level(logging.WARNING):
        assert resolve(wanted("org/tiny"), away).paths == first.paths
    assert "'org/tiny' is taken from the cache, which may not have all of its files" in caplog.text


def test_all_shards_are_downloaded(hub: LoopbackHub, stores: Stores, tmp_path: Path):
    parts = {path.name: path.read_bytes() for path in shards(tmp_path / "parts")}
    hub.add("org/tiny", parts)
    assert names(resolve(wanted("org/tiny"), stores)) == sorted(parts)


def test_a_missing_shard_is_named_before_anything_is_downloaded(hub: LoopbackHub, stores: Stores, tmp_path: Path):
    parts = {path.name: path.read_bytes() for path in shards(tmp_path / "parts")}
    last = sorted(parts)[-1]
    del parts[last]
    hub.add("org/tiny", parts)
    assert last in str(refusal("org/tiny", stores))
    assert hub.downloads() == []


def test_a_revision_is_what_is_asked_for(hub: LoopbackHub, stores: Stores):
    hub.add("org/tiny", {"tiny.gguf": model(Q8_0)}, revision="v2")
    assert names(resolve(wanted("org/tiny@v2"), stores)) == ["tiny.gguf"]
    unavailable = refusal("org/tiny", stores)
    assert isinstance(unavailable, RepositoryUnavailable)
    assert str(unavailable).startswith("'org/tiny' has no revision 'main'.")


def test_a_missing_repository_says_so(hub: LoopbackHub, stores: Stores):
    unavailable = refusal("org/tiny", stores)
    assert isinstance(unavailable, RepositoryUnavailable)
    assert unavailable.why == "missing"
    assert str(unavailable).startswith(f"'org/tiny' does not exist at {hub.url}, or is private.")


def test_a_gated_repository_says_where_to_accept_its_terms(hub: LoopbackHub, stores: Stores):
    hub.add("org/tiny", {"tiny.gguf": model(Q8_0)}, gated=True)
    unavailable = refusal("org/tiny", stores)
    assert isinstance(unavailable, RepositoryUnavailable)
    assert unavailable.why == "gated"
    assert f"Accept them at {hub.url}/org/tiny" in str(unavailable)


# Where quant looks


def test_a_published_sibling_comes_before_quantisation_here(hub: LoopbackHub, stores: Stores):
    hub.add("org/tiny", {"model.safetensors": b"", "config.json": b"{}"})
    hub.add("quantizer/org_tiny-GGUF", {"tiny-Q4_K_M.gguf": model(Q4_K_M)}, base_models=["org/tiny"])
    plan = plan_files(wanted("org/tiny", quant="4"), stores)
    assert plan.decision.reasons == (
        "'org/tiny-GGUF' is missing.",
        "tiny-Q4_K_M.gguf: Q4_K_M is the preferred type of 4 bits there.",
    )
    assert names(resolve(wanted("org/tiny", quant="4"), stores)) == ["tiny-Q4_K_M.gguf"]


def test_a_sibling_of_another_model_is_passed_over(hub: LoopbackHub, stores: Stores):
    hub.add("org/tiny", {"model.safetensors": b"", "config.json": b"{}"})
    hub.add("org/tiny-GGUF", {"tiny-Q4_K_M.gguf": model(Q4_K_M)}, base_models=["evil/other"])
    plan = plan_files(wanted("org/tiny", quant="4"), stores)
    assert plan.decision.reasons == (
        "'org/tiny-GGUF' is passed over: it declares to be made from evil/other, not from 'org/tiny'.",
        "'quantizer/org_tiny-GGUF' is missing.",
        "The safetensors weights of 'org/tiny' are quantised here to Q4_K_M.",
    )


def test_isq_never_looks_for_siblings(hub: LoopbackHub, stores: Stores):
    hub.add("org/tiny", {"model.safetensors": b"", "config.json": b"{}"})
    hub.add("org/tiny-GGUF", {"tiny-Q4_K_M.gguf": model(Q4_K_M)}, base_models=["org/tiny"])
    plan = plan_files(wanted("org/tiny", isq="4"), stores)
    assert plan.decision.form == "safetensors"
    assert not any("GGUF" in path for _, path, _ in hub.requests)


def test_auto_takes_the_best_that_fits(hub: LoopbackHub, stores: Stores):
    hub.add("org/tiny-GGUF", {"tiny-Q4_K_M.gguf": model(Q4_K_M), "tiny-Q8_0.gguf": model(Q8_0)})
    ask = wanted("org/tiny-GGUF", quant="auto")
    assert plan_files(ask, stores, lambda _: True).decision.names == ("tiny-Q8_0.gguf",)
    small = plan_files(ask, stores, lambda plan: plan.decision.label == "Q4_K_M")
    assert small.decision.names == ("tiny-Q4_K_M.gguf",)
    assert "8 bits: it does not fit the memory budget." in small.decision.reasons
    with pytest.raises(UnusableModel, match="quant = 'auto' finds nothing"):
        plan_files(ask, stores, lambda _: False)


def test_a_plan_downloads_nothing_and_reads_the_header_where_it_lies(hub: LoopbackHub, stores: Stores, tmp_path: Path):
    hub.add("org/tiny", {"tiny.gguf": model(Q8_0)})
    plan = plan_files(wanted("org/tiny"), stores)
    assert not plan.is_ready
    assert plan.download_bytes == len(model(Q8_0))
    assert estimate_files(plan, stores).header.name == "Tiny"
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_a_header_that_llama_cpp_would_abort_on_is_refused_before_the_download(hub: LoopbackHub, stores: Stores):
    hub.add("org/tiny", {"tiny.gguf": tiny_model({"llama.rope.scaling.type": (STR, "wrong")})})
    plan = plan_files(wanted("org/tiny"), stores)
    with pytest.raises(UnusableModel, match=r"rope.scaling.type"):
        estimate_files(plan, stores)


# Downloads that go wrong

LARGE = 3_000_000


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub writes what has come 10 MiB at a time: less can be lost and resumed."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)


def large_model() -> bytes:
    """A model that does not come in one piece."""
    return tiny_model({"tokenizer.chat_template": (STR, "x" * LARGE)})


@pytest.mark.usefixtures("small_chunks")
def test_a_download_that_breaks_off_goes_on_where_it_was(hub: LoopbackHub, stores: Stores):
    content = large_model()
    hub.add("org/tiny", {"tiny.gguf": content}, breaks_after=len(content) // 3, breaks=2)
    files = resolve(wanted("org/tiny"), stores)
    assert files.paths[0].read_bytes() == content
    assert sum("bytes=" in download for download in hub.downloads()) == 2
    assert hub.sent_bytes < 1.2 * len(content)


def test_a_download_that_breaks_off_for_ever_is_an_error_and_leaves_no_file(
    hub: LoopbackHub, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.add("org/tiny", {"tiny.gguf": large_model()}, breaks_after=1, breaks=1000)
    unavailable = refusal("org/tiny", stores)
    assert isinstance(unavailable, RepositoryUnavailable)
    assert unavailable.why == "unreachable"
    assert not list((tmp_path / "cache").rglob("*.gguf"))


@pytest.mark.usefixtures("small_chunks")
def test_a_download_can_be_given_up_at_once_and_begun_anew(hub: LoopbackHub, stores: Stores, tmp_path: Path):
    content = large_model()
    repository = hub.add("org/tiny", {"tiny.gguf": content}, bytes_per_s=1_000_000)
    seen: list[Progress] = []

    def until_a_third(progress: Progress) -> bool:
        seen.append(progress)
        return progress.fraction < 0.3

    with pytest.raises(UnusableModel, match=r"The download was given up"):
        resolve(wanted("org/tiny"), stores, until_a_third)
    assert {progress.step for progress in seen} == {"downloading"}
    assert not list((tmp_path / "cache").rglob("*.gguf"))
    repository.bytes_per_s = None
    assert resolve(wanted("org/tiny"), stores).paths[0].read_bytes() == content


def test_two_who_want_the_same_file_download_it_once(hub: LoopbackHub, stores: Stores):
    content = large_model()
    hub.add("org/tiny", {"tiny.gguf": content}, bytes_per_s=6_000_000)
    together = threading.Barrier(2)

    def get() -> ModelFiles:
        together.wait(10)
        return resolve(wanted("org/tiny"), stores)

    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(get) for _ in range(2))
        assert first.result(60).paths == second.result(60).paths
    assert hub.sent_bytes == len(content)
