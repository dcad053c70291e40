"""The yard as its callers hold it, with scripted engines behind real files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from modelyard.config import Config, validate_config
from modelyard.errors import (
    ConfigError,
    ModelLoadFailed,
    ModelNotFound,
    ModelRequired,
    ModelyardError,
    UnsupportedOperation,
)
from modelyard.protocol.prompts import Text
from modelyard.protocol.requests import Cancel
from modelyard.system.file_stamp import FileStamp, first_changed
from modelyard.yard.requests.requests import EmbeddingRequest, Request
from modelyard.yard.residency.state import LoadState
from modelyard.yard.runtime import sized_files
from modelyard.yard.yard import Yard
from support.gguf_writer import U32, tiny_encoder, tiny_model, write
from support.scripted_engines import ScriptedEngines

WAIT_S = 20.0


@pytest.fixture
def engines() -> Iterator[ScriptedEngines]:
    engines = ScriptedEngines(answer=lambda _: ["Hello", " world"])
    yield engines
    assert engines.end()


def config(folder: Path, *models: dict[str, Any], **top: Any) -> Config:
    write(folder / "tiny.gguf", tiny_model())
    return validate_config({"models": list(models), **top}, source="test", base=folder)


def tiny(alias: str, **more: Any) -> dict[str, Any]:
    # The same file under different spellings: an id belongs to one model only.
    return {"model_id": f"./{'./' * len(alias)}tiny.gguf", "alias": alias, **more}


async def text(yard: Yard, **fields: Any) -> str:
    async with asyncio.timeout(WAIT_S), yard.generate(Request(Text("Hi"), **fields)) as generation:
        return await generation.text()


def encoder(folder: Path, **more: Any) -> dict[str, Any]:
    return {"model_id": str(write(folder / "encoder.gguf", tiny_encoder())), "alias": "encoder", **more}


async def test_what_a_model_does_is_found_out_without_loading_it(tmp_path: Path, engines: ScriptedEngines) -> None:
    models = (tiny("a", load="on-demand"), encoder(tmp_path, load="on-demand"))
    yard = Yard(config(tmp_path, *models), engines.make_handle)
    await yard.start()
    assert [model.kind for model in yard.models()] == [None, None]
    refusals = await asyncio.gather(*(text(yard, model="encoder") for _ in range(5)), return_exceptions=True)
    assert {str(refused) for refused in refusals} == {
        "The model 'encoder' is an embedding model, served at /v1/embeddings: it generates no text. Models that do: a."
    }
    with pytest.raises(UnsupportedOperation, match=r"it makes no embeddings\. Models that do: encoder"):
        await yard.embed(EmbeddingRequest((Text("Hi"),), "a"))
    assert [(model.kind, model.status) for model in yard.models()] == [("text", "unloaded"), ("embedding", "unloaded")]
    await yard.close()


async def test_a_model_whose_files_are_gone_is_not_called_anything(tmp_path: Path, engines: ScriptedEngines) -> None:
    yard = Yard(config(tmp_path, tiny("a", load="on-demand")), engines.make_handle)
    await yard.start()
    (tmp_path / "tiny.gguf").unlink()
    with pytest.raises(ModelLoadFailed, match="does not exist"):
        await text(yard)
    assert yard.model("a").kind is None
    await yard.close()


def replace_file(folder: Path, content: bytes) -> None:
    write(folder / "new", content).replace(folder / "tiny.gguf")


@pytest.mark.parametrize("load", ["startup", "on-demand"])
async def test_a_model_whose_file_was_replaced_is_sized_and_loaded_as_it_is_now(
    tmp_path: Path, engines: ScriptedEngines, load: str
) -> None:
    yard = Yard(config(tmp_path, tiny("a", load=load)), engines.make_handle)
    await yard.start()
    if load == "startup":
        await yard.unload("a")
    else:
        assert (await yard.plan("a")).outcome == "fits"
    replace_file(tmp_path, tiny_model({"llama.context_length": (U32, 4096)}))
    assert await text(yard) == "Hello world"
    settings = engines.of("a")[-1].settings
    assert settings is not None
    assert first_changed(settings.files) is None
    await yard.close()


async def test_a_file_that_never_comes_to_rest_is_refused(
    tmp_path: Path, engines: ScriptedEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard = Yard(config(tmp_path, tiny("a", load="on-demand")), engines.make_handle)
    await yard.start()
    looks: list[Path] = []

    def changed(stamps: Sequence[FileStamp]) -> Path:
        looks.append(stamps[0].path)
        return stamps[0].path

    monkeypatch.setattr(sized_files, "first_changed", changed)
    with pytest.raises(ModelLoadFailed, match=r"tiny\.gguf changes while it is looked into\. Try again when it is"):
        await text(yard)
    assert len(looks) == sized_files.MAX_REPLACED_IN_ROW + 1
    await yard.close()


@pytest.mark.parametrize(
    ("model", "draft", "reason"),
    [
        ("a", "encoder", "Its draft model 'encoder': It generates no text"),
        ("encoder", "a", "It generates no text, so that nothing can be drafted for it. Remove draft = 'a'"),
    ],
)
async def test_nothing_is_drafted_by_or_for_an_embedding_model(
    tmp_path: Path, engines: ScriptedEngines, model: str, draft: str, reason: str
) -> None:
    models = {"a": tiny("a"), "encoder": encoder(tmp_path)}
    models[model]["draft"] = draft
    with pytest.raises(ConfigError, match=reason):
        await Yard(config(tmp_path, *models.values()), engines.make_handle).start()


async def test_startup_models_are_loaded_and_others_at_their_first_request(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    yard = Yard(config(tmp_path, tiny("a"), tiny("bb", load="on-demand")), engines.make_handle)
    await yard.start()
    assert [(model.id, model.status) for model in yard.models()] == [("a", "loaded"), ("bb", "unloaded")]
    assert yard.model("bb").quantization is None
    assert await text(yard, model="bb") == "Hello world"
    assert yard.model("bb").status == "loaded"
    assert yard.model("bb").quantization == "Q4_0"
    await yard.close()


async def test_a_request_is_routed_by_name_and_to_the_default(tmp_path: Path, engines: ScriptedEngines) -> None:
    models = tiny("a"), tiny("bb", aliases=["second"])
    yard = Yard(config(tmp_path, *models, default_model_id="second"), engines.make_handle)
    await yard.start()
    async with yard.generate(Request(Text("Hi"))) as generation:
        assert generation.model == "bb"
    assert [model.is_default for model in yard.models()] == [False, True]
    with pytest.raises(ModelNotFound, match="Known: a, bb"):
        await text(yard, model="c")
    await yard.close()


async def test_without_a_default_a_model_must_be_named_unless_there_is_one_only(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    several = Yard(config(tmp_path, tiny("a"), tiny("bb")), engines.make_handle)
    await several.start()
    with pytest.raises(ModelRequired, match="a, bb"):
        await text(several)
    await several.close()
    one = Yard(config(tmp_path, tiny("a")), engines.make_handle)
    await one.start()
    assert await text(one) == "Hello world"
    await one.close()


async def test_all_missing_files_are_said_at_once_and_nothing_is_loaded(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    missing = {"model_id": "./one.gguf"}, {"model_id": "./two.gguf"}
    yard = Yard(config(tmp_path, tiny("a"), *missing), engines.make_handle)
    with pytest.raises(ConfigError) as refused:
        await yard.start()
    assert len(refused.value.problems) == 2
    assert not engines.of("a")
    await yard.close()


async def test_a_startup_load_that_fails_frees_the_others(tmp_path: Path, engines: ScriptedEngines) -> None:
    engines.loads = False
    yard = Yard(config(tmp_path, tiny("a"), tiny("bb")), engines.make_handle)
    starting = asyncio.create_task(yard.start())
    good, bad = [await asyncio.to_thread(engines.started, name) for name in ("a", "bb")]
    good.load()
    bad.fail_load("no memory left")
    with pytest.raises(ModelLoadFailed, match="no memory left"):
        async with asyncio.timeout(WAIT_S):
            await starting
    assert good.join(WAIT_S)


async def test_leaving_an_answer_early_cancels_it(tmp_path: Path) -> None:
    silent = ScriptedEngines()
    yard = Yard(config(tmp_path, tiny("a")), silent.make_handle)
    await yard.start()
    async with yard.generate(Request(Text("Hi"))):
        pass
    assert await asyncio.to_thread(silent.started("a").heard, Cancel)
    await yard.close()
    assert silent.end()


async def test_the_way_to_a_damaged_file_is_not_told_to_clients(tmp_path: Path, engines: ScriptedEngines) -> None:
    (tmp_path / "secret").mkdir()
    write(tmp_path / "secret" / "bad.gguf", b"no model")
    bad = {"model_id": "./secret/bad.gguf", "alias": "bad", "load": "on-demand"}
    yard = Yard(config(tmp_path, bad), engines.make_handle)
    await yard.start()
    with pytest.raises(ModelLoadFailed, match=r"bad\.gguf") as failed:
        await text(yard, model="bad")
    assert "secret" not in str(failed.value)
    assert yard.model("bad").reason
    await yard.close()


async def test_a_yard_that_was_not_started_says_so(tmp_path: Path, engines: ScriptedEngines) -> None:
    yard = Yard(config(tmp_path, tiny("a")), engines.make_handle)
    with pytest.raises(RuntimeError, match="start"):
        yard.models()
    assert yard.monitor.load_progress() == {}
    await yard.close()


async def test_a_closed_yard_refuses(tmp_path: Path, engines: ScriptedEngines) -> None:
    yard = Yard(config(tmp_path, tiny("a")), engines.make_handle)
    await yard.start()
    await yard.close()
    await yard.close()
    with pytest.raises(ModelyardError, match="shutting down"):
        await text(yard, model="a")


async def test_after_its_files_are_prepared_a_model_is_in_the_state_it_was_in(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    async with asyncio.timeout(WAIT_S):
        yard = Yard(config(tmp_path, tiny("a"), tiny("ab", load="on-demand")), engines.make_handle)
        await yard.start()
        with yard.monitor.observer() as observer:
            await yard.prepare("a")
            await yard.prepare("ab")
            await yard.close()
            changes = [change async for change in observer]
    states = {model: [change.load_state for change in changes if change.model == model] for model in ("a", "ab")}
    assert states["a"][:2] == [LoadState.SIZING, LoadState.LOADED]
    assert states["ab"] == [LoadState.SIZING, LoadState.UNLOADED]
