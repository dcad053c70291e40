"""Models that are found on this machine: what they are called, what is left out, and what follows changes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from modelyard.config import Config, validate_config
from modelyard.hub.select.local_models import find_folder_models
from modelyard.yard.discovery.discovery import Discovery
from modelyard.yard.discovery.follow import DiscoveryFollower
from modelyard.yard.yard import Yard
from support.gguf_writer import shards, tiny_model, write
from support.ollama_files import LIBRARY, OllamaFiles
from support.scripted_engines import ScriptedEngines

SCAN_S = 60.0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, where all stores would be."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for variable in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "LLAMA_CACHE", "OLLAMA_MODELS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("modelyard.hub.sources.ollama_store._SERVICE_STORE", home / "no")
    return home


def config(*models: Mapping[str, Any], base: Path | None = None, **discover: Any) -> Config:
    table = {key: [str(each) for each in value] for key, value in discover.items()}
    return validate_config({"models": list(models), "discover": table}, source="test", base=base)


def found(searched: Config, discovery: Discovery | None = None) -> dict[str, str]:
    """What is served beside the configured models: ids, and what they stand for."""
    discovery = discovery or Discovery()
    discovery.scan(searched, SCAN_S)
    return {model.id: model.source for model in discovery.served(searched).models if model.origin == "discovered"}


def left_out(searched: Config) -> dict[str, str]:
    return dict(Discovery().scan(searched, SCAN_S).left_out)


def test_nothing_is_looked_for_unless_that_is_configured(home: Path) -> None:
    write(home / ".lmstudio/models/a/b/c.gguf", tiny_model())
    assert found(config({"model_id": "org/name"})) == {}


def test_models_of_a_folder_have_the_names_of_their_files_and_shards_are_one(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    write(folder / "a.gguf", tiny_model())
    write(folder / "sub/a.gguf", tiny_model())
    first, *_ = shards(folder, "big")
    assert found(config(folders=[folder])) == {
        "a": str(folder / "a.gguf"),
        "big": str(first),
        "sub/a": str(folder / "sub/a.gguf"),
    }


def test_each_store_is_read_by_its_own_layout(home: Path, tmp_path: Path) -> None:
    hub = home / ".cache/huggingface/hub/models--org--name-GGUF"
    write(hub / "refs/main", b"c0ffee")
    for label in ("Q4_K_M", "Q8_0"):
        blob = write(hub / f"blobs/{label}", tiny_model())
        link = hub / f"snapshots/c0ffee/tiny-{label}.gguf"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    write(home / ".lmstudio/models/publisher/tiny/lms.gguf", tiny_model())
    cache = home / ".cache/llama.cpp"
    write(cache / "org_tiny_cpp.gguf", tiny_model())
    manifest = {"ggufFile": {"rfilename": "cpp.gguf"}}
    write(cache / "manifest=org=tiny=latest.json", json.dumps(manifest).encode())
    write(home / ".local/share/nomic.ai/GPT4All/nomic.gguf", tiny_model())
    OllamaFiles(home / ".ollama/models").add(*LIBRARY, "llama", "1b", model=tiny_model())
    assert set(found(config(stores=["all"]))) == {
        "org/name-GGUF:Q4_K_M",
        "org/name-GGUF:Q8_0",
        "lms",
        "org/tiny",
        "nomic",
        "llama:1b",
    }
    assert set(found(config(stores=["ollama"]))) == {"llama:1b"}


def test_ollamas_parameters_and_system_message_are_taken_over(home: Path) -> None:
    parameters = b'{"temperature": 0.25, "num_ctx": 1024, "stop": ["x"]}'
    OllamaFiles(home / ".ollama/models").add(
        *LIBRARY, "tiny", "latest", model=tiny_model(), params=parameters, system=b"Be brief."
    )
    searched, discovery = config(stores=["ollama"]), Discovery()
    assert found(searched, discovery) == {"tiny": "ollama:tiny:latest"}
    (model,) = discovery.served(searched).models
    assert (model.sampling.temperature, model.device.max_seq_len, model.system) == (0.25, 1024, "Be brief.")
    assert model.load == "on-demand"


def test_parameters_beyond_the_bounds_of_a_configuration_do_not_keep_a_model_out(home: Path) -> None:
    OllamaFiles(home / ".ollama/models").add(
        *LIBRARY, "tiny", "latest", model=tiny_model(), params=b'{"temperature": 1000}'
    )
    assert set(found(config(stores=["ollama"]))) == {"tiny"}


def test_odd_and_damaged_files_are_left_out_with_the_reason(tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "models"
    write(folder / "fine.gguf", tiny_model())
    write(folder / "cut.gguf", tiny_model()[:-100])
    write(folder / "text.gguf", b"no model")
    (folder / "broken.gguf").symlink_to("nowhere")
    (folder / "loop.gguf").symlink_to("loop.gguf")
    os.mkfifo(folder / "pipe.gguf")
    shards(folder, "half")[1].unlink()
    (folder / "again.gguf").symlink_to("fine.gguf")
    searched = config(folders=[folder])
    assert set(found(searched)) == {"again"}
    problems = left_out(searched)
    names = {Path(name).name for name in problems}
    assert names == {"cut.gguf", "text.gguf", "broken.gguf", "loop.gguf", "pipe.gguf", "half-00001-of-00002.gguf"}
    assert "shards are missing" in problems[str(folder / "half-00001-of-00002.gguf")]


def test_a_folder_that_cannot_be_looked_in_is_named_and_keeps_its_models_for_now(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    write(folder / "a.gguf", tiny_model())
    searched, discovery = config(folders=[folder]), Discovery()
    assert set(found(searched, discovery)) == {"a"}
    folder.rename(tmp_path / "elsewhere")
    scan = discovery.scan(searched, SCAN_S)
    assert str(folder) in scan.left_out
    (tmp_path / "elsewhere").rename(folder)
    assert set(found(searched, discovery)) == {"a"}


def test_configured_models_win_by_file_and_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    write(folder / "a.gguf", tiny_model())
    write(folder / "b.gguf", tiny_model())
    write(folder / "c.gguf", tiny_model())
    own = ({"model_id": "./models/a.gguf", "alias": "mine"}, {"model_id": "org/name", "alias": "b"})
    searched = config(*own, base=tmp_path, folders=[folder])
    assert found(searched) == {"models/b": str(folder / "b.gguf"), "c": str(folder / "c.gguf")}


def test_a_repository_that_is_configured_is_not_listed_again_from_the_cache(home: Path) -> None:
    hub = home / ".cache/huggingface/hub/models--org--name-GGUF"
    write(hub / "refs/main", b"c0ffee")
    for label in ("Q4_K_M", "Q8_0"):
        write(hub / f"snapshots/c0ffee/tiny-{label}.gguf", tiny_model())
    searched = config({"model_id": "hf.co/org/name-GGUF:q4_k_m", "alias": "mine"}, stores=["huggingface"])
    assert set(found(searched)) == {"org/name-GGUF:Q8_0"}


def test_the_only_configured_model_stays_the_default(tmp_path: Path) -> None:
    write(tmp_path / "models/a.gguf", tiny_model())
    searched, discovery = config({"model_id": "org/name", "alias": "own"}, folders=[tmp_path / "models"]), Discovery()
    assert set(found(searched, discovery)) == {"a"}
    assert discovery.served(searched).default_model_id == "own"


def test_a_name_stays_when_another_model_comes_that_would_have_it(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    write(folder / "z/x.gguf", tiny_model())
    write(folder / "other.gguf", tiny_model())
    searched, discovery = config(folders=[folder]), Discovery()
    assert "x" in found(searched, discovery)
    write(folder / "a/x.gguf", tiny_model())
    now = found(searched, discovery)
    assert (now["x"], now["a/x"]) == (str(folder / "z/x.gguf"), str(folder / "a/x.gguf"))


def test_a_projector_beside_several_models_belongs_to_the_one_it_is_named_after(tmp_path: Path) -> None:
    for name in ("apple-Q4_K_M", "apple-Q8_0", "pear", "mmproj-apple-F16", "alone/plum", "alone/mmproj-F16"):
        write(tmp_path / f"{name}.gguf", tiny_model())
    models = {model.name: model for model in find_folder_models(tmp_path).models}
    assert {name for name, model in models.items() if model.without_projector} == {"pear"}
    assert set(models) == {"apple-Q4_K_M", "apple-Q8_0", "pear", "plum"}


def test_what_is_checked_late_is_served_after_the_next_search(tmp_path: Path) -> None:
    write(tmp_path / "models/a.gguf", tiny_model())
    searched, times = config(folders=[tmp_path / "models"]), iter((0.0, 10.0, 20.0, 20.0))
    discovery = Discovery(clock=lambda: next(times))
    assert not discovery.scan(searched, 5.0).is_complete
    scan = discovery.scan(searched, 5.0)
    assert scan.is_complete
    assert [model.name for model in scan.models] == ["a"]


@pytest.fixture
def engines() -> Iterator[ScriptedEngines]:
    engines = ScriptedEngines(answer=lambda _: ["Hello"])
    yield engines
    assert engines.end()


async def test_models_come_and_go_while_others_serve(
    tmp_path: Path, engines: ScriptedEngines, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "models"
    write(tmp_path / "own.gguf", tiny_model())
    write(folder / "a.gguf", tiny_model())
    write(folder / "b.gguf", b"no model")
    searched = config({"model_id": "./own.gguf"}, base=tmp_path, folders=[folder])
    yard = Yard(searched, engines.make_handle)
    await yard.start()
    follower = DiscoveryFollower(yard, Discovery())

    async def served() -> list[str]:
        assert await follower.look()
        return [model.id for model in yard.models()]

    assert await served() == ["own", "a"]
    await yard.reload("a")
    write(folder / "b.gguf", tiny_model())
    assert await served() == ["own", "a", "b"]
    (folder / "a.gguf").unlink()
    assert await served() == ["own", "b"]
    assert len([line for line in caplog.messages if "is left out" in line]) == 1
    # A reload of the configuration leaves them as they are.
    await yard.revise(lambda _: follower.discovery.served(searched))
    assert [model.id for model in yard.models()] == ["own", "b"]
    await yard.close()
