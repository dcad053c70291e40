"""From the configuration and the files of a model to its placements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelyard.config import validate_config
from modelyard.engine.placing import LlamaDevice
from modelyard.errors import UnusableModel
from modelyard.hub import ModelFiles, read_header
from modelyard.protocol.placement import ANYWHERE, ON_HOST, DeviceBytes, PlacedBytes, Placement
from modelyard.yard.memory.footprint import Choices
from modelyard.yard.runtime.model_choices import choices_of, draft_placement, joined
from modelyard.yard.runtime.model_spec import ModelSpec, SpecFiles, footprint_of
from support.sparse_models import write_dense

CPU = LlamaDevice("CPU", "", "cpu", 0, 0, "CPU")
TWO = (*(LlamaDevice(f"CUDA{number}", "", "gpu", 0, 24 << 30, "CUDA", f"{number}") for number in range(2)), CPU)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    path = write_dense(tmp_path_factory.mktemp("dense") / "dense.gguf", layers=8)
    header = read_header(path)
    return ModelFiles((path,), header, header.file_size, "", "F16", parameter_count=1)


def spec(draft: dict[str, Any] | None = None, **device: Any) -> ModelSpec:
    model: dict[str, Any] = {"model_id": "org/a", "device": device}
    others = []
    if draft is not None:
        model["draft"] = "org/d"
        others.append({"model_id": "org/d", "device": draft})
    config = validate_config({"models": [model, *others]})
    return ModelSpec(config, config.models[0])


def placements(choices: Choices) -> list[Placement]:
    return [each.placement for each in choices]


def test_without_accelerators_there_is_one_choice_as_it_is_configured(files: ModelFiles) -> None:
    one = spec()
    (only,) = choices_of(one, SpecFiles(files, None), (CPU,))
    assert only == footprint_of(one.config, one.model, files)
    assert only.placement == ANYWHERE
    assert only.devices == ()


def test_with_accelerators_there_are_several_of_which_the_host_is_the_last(files: ModelFiles) -> None:
    choices = choices_of(spec(), SpecFiles(files, None), TWO)
    assert placements(choices)[:2] == [Placement(devices=("CUDA0",)), Placement(devices=("CUDA1",))]
    assert choices[-1].placement == ON_HOST


@pytest.mark.parametrize("device", [{"cpu": True}, {"n_gpu_layers": 0}])
def test_what_is_configured_for_the_host_stays_there(files: ModelFiles, device: dict[str, Any]) -> None:
    (only,) = choices_of(spec(**device), SpecFiles(files, None), TWO)
    assert not only.placement.uses_devices


def test_a_device_that_does_not_exist_is_refused(files: ModelFiles) -> None:
    with pytest.raises(UnusableModel, match="There are: 0"):
        choices_of(spec(devices=["CUDA7"]), SpecFiles(files, None), TWO)


def test_an_embedding_model_is_whole_on_a_device_or_on_the_host(files: ModelFiles) -> None:
    choices = choices_of(spec(), SpecFiles(replace(files, kind="embedding"), None), TWO)
    assert placements(choices) == [Placement(devices=("CUDA0",)), Placement(devices=("CUDA1",)), ON_HOST]
    assert choices[0].devices[0].weights_bytes > choices[0].weights_bytes


def test_a_header_without_all_tensors_tells_nothing_of_devices(files: ModelFiles) -> None:
    (only,) = choices_of(spec(), SpecFiles(replace(files, parameter_count=None), None), TWO)
    assert only.placement.devices == ("CUDA0", "CUDA1")
    assert only.devices == ()


def test_a_draft_model_is_beside_its_target(files: ModelFiles) -> None:
    both = SpecFiles(files, files)
    choices = choices_of(spec({}), both, TWO)
    alone = choices_of(spec(), SpecFiles(files, None), TWO)
    assert [[share.pool for share in each.devices] for each in choices[:2]] == [["CUDA0"] * 2, ["CUDA1"] * 2]
    # It is the same file in the same place, whose weights it shares.
    assert {share.weights_key for share in choices[0].devices} == {alone[0].weights_key}
    assert choices[-1].devices == ()
    assert choices[-1].draft_bytes > 0


def test_what_llama_cpp_has_planned_for_a_draft_model_counts(files: ModelFiles) -> None:
    planned = {"CUDA0": DeviceBytes(weights=7_000, kv=500, compute=60), "host": DeviceBytes()}

    def known(placement: Placement) -> PlacedBytes | None:
        return planned if placement.devices == ("CUDA0",) else None

    first, second, *_ = choices_of(spec({}), SpecFiles(files, files), TWO, known_of_draft=known)
    predicted, draft = first.devices
    assert (draft.weights_bytes, draft.context_bytes) == (7_000, 560)
    assert predicted.context_bytes > 560
    assert second.devices[1].context_bytes > 560


@pytest.mark.parametrize(
    ("configured", "target", "expected"),
    [
        ({}, Placement(devices=("CUDA1",)), Placement(devices=("CUDA1",))),
        ({}, Placement(devices=("CUDA0", "CUDA1"), split=(1.0, 1.0)), Placement(devices=("CUDA0",))),
        ({}, Placement(devices=("CUDA0", "CUDA1"), main_device=1), Placement(devices=("CUDA1",))),
        ({}, ON_HOST, ON_HOST),
        ({"devices": ["CUDA0"]}, ON_HOST, Placement(devices=("CUDA0",))),
        ({"n_gpu_layers": 0}, Placement(devices=("CUDA1",)), ON_HOST),
        ({"n_gpu_layers": 2}, Placement(devices=("CUDA1",)), Placement(devices=("CUDA0",), gpu_layers=2)),
    ],
)
def test_a_draft_model_is_where_it_is_configured_or_where_its_target_is(
    files: ModelFiles, configured: dict[str, Any], target: Placement, expected: Placement
) -> None:
    assert draft_placement(spec(configured), SpecFiles(files, files), target, TWO) == expected


def test_without_accelerators_a_draft_model_is_as_it_is_configured(files: ModelFiles) -> None:
    assert draft_placement(spec({}), SpecFiles(files, files), ANYWHERE, ()) == ANYWHERE
    assert draft_placement(spec(), SpecFiles(files, None), ANYWHERE, ()) == ON_HOST


def test_shards_are_joined_to_one_header(files: ModelFiles) -> None:
    header, half = files.header, len(files.header.tensors) // 2
    split = {"split.count": 2}
    first = replace(
        header, tensors=header.tensors[:half], metadata={**header.metadata, **split, "split.no": 0}, file_size=1000
    )
    second = replace(header, tensors=header.tensors[half:], metadata={**split, "split.no": 1}, file_size=500)
    whole = joined([first, second])
    assert whole.split == (0, 1)
    assert whole.file_size == 1500
    assert [each.name for each in whole.tensors] == [each.name for each in header.tensors]
    assert whole.tensors[half].offset == header.tensors[half].offset + 1000


def test_the_further_shards_of_a_model_are_read(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    header, half = files.header, len(files.header.tensors) // 2
    parts = [
        replace(header, tensors=tensors, metadata={**header.metadata, "split.count": 2, "split.no": number})
        for number, tensors in enumerate((header.tensors[:half], header.tensors[half:]))
    ]
    monkeypatch.setattr("modelyard.yard.runtime.model_choices.read_header", lambda _: parts[1])
    sharded = replace(files, header=parts[0], paths=(files.paths[0], tmp_path / "second.gguf"))
    whole = choices_of(spec(), SpecFiles(files, None), TWO)
    found = choices_of(spec(), SpecFiles(sharded, None), TWO)
    assert placements(found) == placements(whole)
    assert [each.devices[0].weights_bytes for each in found[:-1]] == [
        each.devices[0].weights_bytes for each in whole[:-1]
    ]


def test_models_go_to_the_host_once_all_devices_are_gone(files: ModelFiles) -> None:
    both = SpecFiles(files, files)
    for left in ((), (CPU,)):
        (only,) = choices_of(spec({}), both, left, are_gone=True)
        assert only.placement == ON_HOST, "llama.cpp still lists what is gone, and would use it"
        assert draft_placement(spec({}), both, ON_HOST, left, are_gone=True) == ON_HOST


def test_layers_for_devices_that_are_gone_are_refused(files: ModelFiles) -> None:
    with pytest.raises(UnusableModel, match=r"All that were there when the server started are gone\."):
        choices_of(spec(n_gpu_layers=99), SpecFiles(files, None), (), are_gone=True)
