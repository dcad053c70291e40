"""What the configuration leaves open and the yard chooses, with scripted engines behind real files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.config import Config, Model, validate_config
from modelyard.engine.placing import LlamaDevice
from modelyard.errors import ConfigError
from modelyard.hub import read_header
from modelyard.hub.select.model_files import ModelFiles
from modelyard.protocol.placement import DeviceBytes
from modelyard.yard.memory.pools import taken_bytes
from modelyard.yard.runtime.dry_loads import DryLoads
from modelyard.yard.runtime.engine_factory import EngineFactory
from modelyard.yard.runtime.fitting import with_context
from modelyard.yard.runtime.interfaces import ModelOutgrown
from modelyard.yard.runtime.model_spec import ModelSpec, footprint_of
from modelyard.yard.yard import Yard
from support.adapters import write_adapter
from support.gguf_writer import (
    TENSOR_F16,
    TENSOR_F32,
    TENSOR_Q8_0,
    U32,
    Tensor,
    gguf,
    model_pairs,
    model_tensors,
    tiny_encoder,
    tiny_model,
    write,
)
from support.scripted_engines import ScriptedEngines

TRAINED = 131_072
WEIGHTS = ("a", "b", "c")


@pytest.fixture
def engines() -> Iterator[ScriptedEngines]:
    engines = ScriptedEngines(answer=lambda _: ["Hello"])
    yield engines
    assert engines.end()


def config(folder: Path, *models: dict[str, Any], budget: int = 2**40, trained: int = TRAINED) -> Config:
    """Models on a file each, of which the first ones are called a, b, c."""
    tables = []
    for alias, model in zip(WEIGHTS, models, strict=False):
        write(folder / f"{alias}.gguf", tiny_model({"llama.context_length": (U32, trained)}))
        tables.append({"model_id": f"./{alias}.gguf", "alias": alias, **model})
    memory = {"budget": f"{budget}B"}
    return validate_config({"models": tables, "memory": memory}, source="test", base=folder)


def context(length: Any, **more: Any) -> dict[str, Any]:
    return {"device": {"max_seq_len": length}, **more}


AUTO = context("auto")


def bytes_of(folder: Path, length: int, alias: str = "a") -> int:
    """What a model takes with such a context."""
    one = config(folder, {}, {}, {})
    model = next(each for each in one.models if each.id == alias)
    return footprint_of(one, with_context(model, length), files_of(folder / f"{alias}.gguf", model)).total_bytes


def files_of(path: Path, model: Model) -> ModelFiles:
    header = read_header(path)
    return ModelFiles((path,), header, header.file_size, "named", header.quantization, "text")


def budget_for(folder: Path, *lengths: int) -> int:
    """A budget for models with such contexts, with what stays spare."""
    return int(sum(bytes_of(folder, length) for length in lengths) / 0.97) + 1


def settings_of(engines: ScriptedEngines, name: str) -> int | None:
    return engines.of(name)[-1].settings.context_length


async def started(engines: ScriptedEngines, given: Config) -> Yard:
    yard = Yard(given, engines.make_handle)
    await yard.start()
    return yard


async def test_without_the_key_an_engine_chooses_as_ever_where_that_fits(
    tmp_path: Path, engines: ScriptedEngines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    yard = await started(engines, config(tmp_path, {}, {}))
    assert settings_of(engines, "a") is None
    assert [model.context_reason for model in yard.models()] == ["", ""]
    assert "context" not in caplog.text
    await yard.close()


async def test_auto_is_all_that_a_model_was_trained_on_where_that_fits(
    tmp_path: Path, engines: ScriptedEngines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    yard = await started(engines, config(tmp_path, AUTO, {}))
    assert settings_of(engines, "a") == TRAINED
    assert yard.model("a").context_reason == "all that the model was trained on"
    assert "a: a context of 131,072 tokens, all that the model was trained on" in caplog.text
    await yard.close()


async def test_contexts_become_as_short_as_the_models_of_the_start_need_to_fit_together(
    tmp_path: Path, engines: ScriptedEngines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    yard = await started(
        engines, config(tmp_path, AUTO, context(20_000), {}, budget=budget_for(tmp_path, 30_720, 20_000, 8192))
    )
    assert {name: settings_of(engines, name) for name in WEIGHTS} == {"a": 30_720, "b": 20_000, "c": None}
    assert [model.status for model in yard.models()] == ["loaded"] * 3
    why = "shortened from 131,072, so that the models that are loaded at the start fit the memory"
    assert yard.model("a").context_reason == why
    assert f"a: a context of 30,720 tokens, {why}" in caplog.text
    await yard.close()


async def test_the_default_is_shortened_too_where_models_do_not_fit_beside_each_other(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    yard = await started(engines, config(tmp_path, {}, {}, budget=budget_for(tmp_path, 5120, 5120)))
    assert {name: settings_of(engines, name) for name in ("a", "b")} == {"a": 5120, "b": 5120}
    assert yard.model("b").context_reason.startswith("shortened from 8,192, so that the models")
    await yard.close()


async def test_a_number_stays_what_it_is_though_the_models_do_not_fit_together(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    models = (context(8192), context(8192))
    yard = await started(engines, config(tmp_path, *models, budget=budget_for(tmp_path, 8192) + 5_000_000))
    assert settings_of(engines, "a") == 8192
    assert [model.status for model in yard.models()] == ["loaded", "unloaded"]
    await yard.close()


async def test_a_model_on_demand_fits_by_itself_beside_what_is_pinned(tmp_path: Path, engines: ScriptedEngines) -> None:
    models = (context(10_240, pinned=True), context(20_480), {**AUTO, "load": "on-demand"})
    yard = await started(engines, config(tmp_path, *models, budget=budget_for(tmp_path, 10_240, 50_176)))
    await yard.survey()
    listed = yard.model("c")
    assert (listed.context_length, listed.context_reason) == (
        50_176,
        "shortened from 131,072, so that it fits the memory",
    )
    await yard.reload("c")
    assert settings_of(engines, "c") == 50_176
    assert yard.model("a").status == "loaded"
    await yard.close()


async def test_a_context_is_the_same_at_every_load(tmp_path: Path, engines: ScriptedEngines) -> None:
    models = (AUTO, {**AUTO, "load": "on-demand"})
    yard = await started(engines, config(tmp_path, *models, budget=budget_for(tmp_path, 30_720)))
    for _ in range(3):
        await yard.reload("b")
        await yard.unload("b")
        await yard.reload("a")
        await yard.unload("a")
    lengths = [engine.settings.context_length for name in ("a", "b") for engine in engines.of(name)]
    assert len(lengths) > 5
    assert set(lengths) == {30_720}
    await yard.close()


async def test_another_budget_chooses_anew_and_replaces_only_models_whose_contexts_change(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    models = (AUTO, context(8192))
    yard = await started(engines, config(tmp_path, *models, budget=budget_for(tmp_path, 30_720, 8192)))
    given = config(tmp_path, *models, budget=budget_for(tmp_path, 20_480, 8192))
    dry = await yard.reconfigure(given, dry_run=True)
    assert dry.diff.changed == {"a": ("memory.budget",)}
    assert settings_of(engines, "a") == 30_720
    done = await yard.reconfigure(given)
    assert (done.diff.changed, done.failed) == ({"a": ("memory.budget",)}, {})
    assert settings_of(engines, "a") == 20_480
    assert len(engines.of("b")) == 1
    again = await yard.reconfigure(config(tmp_path, *models, budget=budget_for(tmp_path, 20_480, 8192) + 1))
    assert (again.diff.memory, again.diff.changed) == (("budget",), {})
    await yard.close()


async def test_a_new_model_fits_beside_those_that_stay_as_they_are(tmp_path: Path, engines: ScriptedEngines) -> None:
    budget = budget_for(tmp_path, 30_720, 20_480)
    yard = await started(engines, config(tmp_path, context(30_720), budget=budget))
    done = await yard.reconfigure(config(tmp_path, context(30_720), AUTO, budget=budget))
    assert done.diff.added == ("b",)
    assert settings_of(engines, "b") == 20_480
    assert [model.status for model in yard.models()] == ["loaded", "loaded"]
    await yard.close()


async def test_other_settings_of_a_model_leave_its_context_alone(tmp_path: Path, engines: ScriptedEngines) -> None:
    budget = budget_for(tmp_path, 30_720)
    yard = await started(engines, config(tmp_path, AUTO, budget=budget))
    await yard.reconfigure(config(tmp_path, {**AUTO, "weight": 2.0}, budget=budget))
    await yard.unload("a")
    await yard.reload("a")
    assert settings_of(engines, "a") == 30_720
    assert yard.factory.specs["a"].model.weight == 2.0
    await yard.close()


async def test_files_that_were_replaced_have_their_context_chosen_anew(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    yard = await started(engines, config(tmp_path, AUTO))
    await yard.unload("a")
    other = tmp_path / "other.gguf"
    write(other, tiny_model({"llama.context_length": (U32, 16_384)}))
    other.replace(tmp_path / "a.gguf")
    await yard.reload("a")
    assert settings_of(engines, "a") == 16_384
    await yard.close()


async def test_embedding_models_take_auto_and_keep_their_default(tmp_path: Path, engines: ScriptedEngines) -> None:
    write(tmp_path / "e.gguf", tiny_encoder())
    models = [{"model_id": "./e.gguf", "alias": "e"}, {"model_id": "././e.gguf", "alias": "f", **AUTO}]
    yard = await started(engines, validate_config({"models": models}, source="test", base=tmp_path))
    assert settings_of(engines, "e") is None
    assert settings_of(engines, "f") == read_header(tmp_path / "e.gguf").context_length
    await yard.close()


def repository(folder: Path, name: str, labels: dict[str, int]) -> str:
    """A folder of one model in several types, whose files differ by megabytes."""
    for label, kind in labels.items():
        pairs = model_pairs()
        pairs["llama.context_length"] = (U32, 128)
        large = [Tensor(f"blk.0.more_{number}.weight", (32, 16_000), kind) for number in range(20)]
        tensors = [*model_tensors(kind=TENSOR_F32), *large]
        write(folder / name / f"{name}-{label}.gguf", gguf(pairs, tensors))
    return f"./{name}"


async def test_types_are_chosen_so_that_the_models_of_the_start_fit_together(
    tmp_path: Path, engines: ScriptedEngines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    labels = {"Q8_0": TENSOR_F16, "Q6_K": TENSOR_Q8_0}
    quant = {"quantization": {"quant": "auto"}}
    models = [
        {"model_id": repository(tmp_path, name, labels), "alias": name, **quant, **more}
        for name, more in (("a", {}), ("b", {}), ("c", {"load": "on-demand"}))
    ]

    def of(budget: int) -> Config:
        given = {"models": models, "memory": {"budget": f"{budget}B"}}
        return validate_config(given, source="test", base=tmp_path)

    alone = of(2**40)
    sizes = {
        label: footprint_of(alone, alone.models[0], files_of(tmp_path / "a" / f"a-{label}.gguf", alone.models[0]))
        for label in labels
    }
    assert sizes["Q8_0"].total_bytes > sizes["Q6_K"].total_bytes
    yard = await started(engines, of(sizes["Q8_0"].total_bytes + sizes["Q6_K"].total_bytes + 2_000_000))
    names = {name: engines.of(name)[-1].settings.paths[0].name for name in ("a", "b")}
    assert names == {"a": "a-Q8_0.gguf", "b": "b-Q6_K.gguf"}
    assert "b: Q6_K, the set does not fit the memory with Q8_0" in caplog.text
    await yard.reload("c")
    assert engines.of("c")[-1].settings.paths[0].name == "c-Q8_0.gguf"
    await yard.close()


async def test_a_type_is_chosen_that_leaves_room_for_the_adapters(tmp_path: Path, engines: ScriptedEngines) -> None:
    folder = repository(tmp_path, "a", {"Q8_0": TENSOR_F16, "Q6_K": TENSOR_Q8_0})
    write_adapter(tmp_path / "wide.gguf", tmp_path / "a" / "a-Q8_0.gguf", rank=512)

    def of(budget: int, **more: Any) -> Config:
        model = {"model_id": folder, "alias": "a", "quantization": {"quant": "auto"}, **more}
        return validate_config({"models": [model], "memory": {"budget": f"{budget}B"}}, source="test", base=tmp_path)

    alone = of(2**40)
    whole = footprint_of(alone, alone.models[0], files_of(tmp_path / "a" / "a-Q8_0.gguf", alone.models[0])).total_bytes
    for adapters, chosen in (([], "a-Q8_0.gguf"), ([{"name": "wide", "path": "./wide.gguf"}], "a-Q6_K.gguf")):
        yard = await started(engines, of(whole + 1_500_000, adapters=adapters))
        assert engines.of("a")[-1].settings.paths[0].name == chosen
        await yard.close()


async def test_a_draft_model_has_the_type_that_was_chosen_for_it(tmp_path: Path, engines: ScriptedEngines) -> None:
    quant = {"quantization": {"quant": "auto"}}
    folders = {name: repository(tmp_path, name, {"Q8_0": TENSOR_F16, "Q6_K": TENSOR_Q8_0}) for name in ("a", "b")}
    drafted = {"model_id": folders["a"], "alias": "a", "draft": "b", **quant}
    draft = {"model_id": folders["b"], "alias": "b", **quant}

    def of(**more: Any) -> Config:
        given = {"models": [{**drafted, **more}, draft], "memory": {"budget": "60MB"}}
        return validate_config(given, source="test", base=tmp_path)

    yard = await started(engines, of())
    for more in ({}, {"weight": 2.0}, {"sampling": {"temperature": 0.5}}):
        await yard.reconfigure(of(**more))
        await yard.unload("a")
        await yard.reload("a")
        (path,) = engines.of("a")[-1].settings.draft
        assert path.name == "b-Q6_K.gguf"
    await yard.reload("b")
    assert engines.of("b")[-1].settings.paths == (path,)
    await yard.close()


def on_a_card(
    given: Config, engines: ScriptedEngines, card_bytes: int, host_bytes: int, plans: DryLoads | None = None
) -> EngineFactory:
    """What makes engines on a machine with one card."""
    factory = EngineFactory(engines.make_handle, dry_loads=plans)
    factory.specs = {model.id: ModelSpec(given, model) for model in given.models}
    factory.memory.devices = (LlamaDevice("GPU0", "a card", "gpu", card_bytes, card_bytes, "CUDA"),)
    factory.memory.budget_bytes, factory.memory.device_budgets = host_bytes, {"GPU0": card_bytes}
    return factory


async def test_the_type_of_a_single_model_fits_a_device_although_the_host_is_smaller(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    source = repository(tmp_path, "a", {"Q8_0": TENSOR_F16, "Q6_K": TENSOR_Q8_0})
    for load in ("startup", "on-demand"):
        model = {"model_id": source, "alias": "a", "load": load, "quantization": {"quant": "auto"}}
        given = validate_config({"models": [model]}, source="test", base=tmp_path)
        factory = on_a_card(given, engines, 2**30, 20_000_000)
        (choices,) = (await factory.check(["a"])).values()
        assert "Q8_0" in choices[0].weights_key
        factory.close()


async def test_the_weights_of_a_draft_model_count_when_types_are_chosen(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    labels = {"Q8_0": TENSOR_F16, "Q6_K": TENSOR_Q8_0}
    quant = {"quantization": {"quant": "auto"}}
    draft = {"model_id": repository(tmp_path, "d", {"Q8_0": TENSOR_F16}), "alias": "d", "load": "on-demand"}
    models = [
        {"model_id": repository(tmp_path, name, labels), "alias": name, "draft": "d", **quant} for name in ("a", "b")
    ]
    given = validate_config({"models": [*models, draft]}, source="test", base=tmp_path)

    files = {name: files_of(tmp_path / name / f"{name}-Q8_0.gguf", given.models[0]) for name in ("a", "b", "d")}
    drafted = [footprint_of(given, given.models[0], files[name], files["d"]) for name in ("a", "b")]
    factory = EngineFactory(engines.make_handle)
    factory.specs = {model.id: ModelSpec(given, model) for model in given.models}
    # There is room for the two models in their best types, and not for what drafts for them.
    factory.memory.budget_bytes = taken_bytes(drafted)["host"] - 1
    sized = await factory.check(["a", "b"])
    factory.close()
    assert [factory.fitter.quants[name].label for name in ("a", "b")] == ["Q8_0", "Q6_K"]
    assert taken_bytes(choices[0] for choices in sized.values())["host"] <= factory.memory.budget_bytes


async def test_a_model_without_any_type_is_named(tmp_path: Path, engines: ScriptedEngines) -> None:
    models = [
        {"model_id": f"./{name}", "alias": name, "quantization": {"quant": "auto"}} for name in ("first", "second")
    ]
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    yard = Yard(validate_config({"models": models}, source="test", base=tmp_path), engines.make_handle)
    with pytest.raises(ConfigError, match=r"(?s)model 'first': .*model 'second': "):
        await yard.start()


async def test_a_context_fits_the_device_that_its_model_is_put_on(tmp_path: Path, engines: ScriptedEngines) -> None:
    async def length_with(budget_bytes: int) -> int:
        given = config(tmp_path, AUTO)
        factory = on_a_card(given, engines, 2**30, 2**40)
        factory.memory.device_budgets = {"GPU0": budget_bytes}
        await factory.check(["a"])
        chosen = factory.fitter.contexts["a"]
        factory.close()
        if chosen.is_shortened:
            assert chosen.reason == "shortened from 131,072, so that it fits the memory of GPU0"
        return chosen.length

    lengths = [await length_with(size) for size in (2**30, 30_000_000, 12_000_000, 0)]
    # With all of the card, with ever less of it, and on the host.
    assert lengths[0] == TRAINED
    assert TRAINED > lengths[1] > lengths[2] >= 4096
    assert lengths[3] == TRAINED


async def test_models_on_the_same_file_both_learn_what_one_plan_has_found(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    """Both are sized before either is planned; settings that memory does not depend on differ."""
    path = write(tmp_path / "a.gguf", tiny_model())
    models = [{"model_id": str(path), "alias": "a"}, {"model_id": f"{tmp_path}/./a.gguf", "alias": "b", "weight": 2.0}]
    given = validate_config({"models": models}, source="test", base=tmp_path)
    planned = {"GPU0": DeviceBytes(weights=50_000_000, kv=9_000_000), "host": DeviceBytes()}
    factory = on_a_card(given, engines, 2**30, 2**30, DryLoads(lambda _, **__: planned))
    sized = await factory.check(["a", "b"])
    for name in ("a", "b"):
        placement = sized[name][0].placement
        assert placement.devices == ("GPU0",)
        with pytest.raises(ModelOutgrown) as outgrown:
            await factory.make(name, lambda _: None, placement)
        assert outgrown.value.footprint.devices[0].total_bytes == 59_000_000
    factory.close()
