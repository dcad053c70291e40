"""What a model takes in each of its placements; ``tests/integration/test_placement_choices.py`` measures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from modelyard.engine.placing import LlamaDevice
from modelyard.formats.gguf.read import read_header
from modelyard.hub import ModelFiles
from modelyard.protocol.placement import ON_HOST, DeviceBytes, PlacedBytes, Placement
from modelyard.yard.memory.choice_footprints import PlaceableModel
from modelyard.yard.memory.device_pools import pool_of, speed_of
from modelyard.yard.memory.footprint import DeviceShare, Footprint
from modelyard.yard.memory.placed_footprint import text_model
from modelyard.yard.memory.prediction import ContextSettings, context_parts, footprint
from modelyard.yard.memory.token_time import token_seconds
from support.sparse_models import write_experts

LAYERS = 24
SIZES = {"context_length": 4096, "sequences": 12, "batch_tokens": 512}
WHOLE = Placement(devices=("CUDA0",))


def device(name: str, kind: str = "gpu", backend: str = "CUDA") -> LlamaDevice:
    return LlamaDevice(name, "", kind, 0, 24 << 30, backend)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    path = write_experts(tmp_path_factory.mktemp("experts") / "experts.gguf", layers=LAYERS)
    header = read_header(path)
    return ModelFiles((path,), header, header.file_size, "", "Q4_K", parameter_count=1)


def placeable(
    files: ModelFiles, *devices: LlamaDevice, known: Mapping[Placement, PlacedBytes] | None = None
) -> PlaceableModel:
    settings = ContextSettings(running=8, threads=4, **SIZES)  # type: ignore[arg-type]
    context = context_parts(files, settings)
    return PlaceableModel(
        text_model(files.header, settings, "x86_64"),
        footprint(files, context.total, "x86_64"),
        context,
        {each.name: each for each in devices or (device("CUDA0"), device("CUDA1"))},
        (known or {}).get,
    )


def test_on_the_host_a_model_takes_what_it_takes_without_devices(files: ModelFiles) -> None:
    model = placeable(files)
    assert model.footprint(ON_HOST) == replace(model.on_host, placement=ON_HOST)


def test_what_is_on_a_device_is_not_on_the_host(files: ModelFiles) -> None:
    model = placeable(files)
    whole, host = model.footprint(WHOLE), model.on_host
    (share,) = whole.devices
    (embeddings,) = (tensor.size_bytes for tensor in files.header.tensors if tensor.name == "token_embd.weight")
    assert share.weights_bytes == files.header.size_bytes - embeddings
    # As the output matrix, embeddings are on the host in a second, repacked copy.
    assert host.weights_bytes - whole.weights_bytes == share.weights_bytes
    assert host.context_bytes - whole.context_bytes > model.context.cache
    half = model.footprint(Placement(devices=("CUDA0",), gpu_layers=12))
    assert whole.host_bytes < half.host_bytes < host.host_bytes
    assert half.devices[0].weights_bytes < share.weights_bytes


def test_each_place_of_the_weights_has_a_key_of_its_own_and_equal_places_an_equal_one(files: ModelFiles) -> None:
    model = placeable(files)
    placements = [ON_HOST, WHOLE, Placement(devices=("CUDA1",)), Placement(devices=("CUDA0",), gpu_layers=3)]
    keys = {model.footprint(each).weights_key for each in placements}
    assert len(keys) == len(placements)
    assert placeable(files).footprint(WHOLE) == model.footprint(WHOLE)
    cached_elsewhere = model.footprint(Placement(devices=("CUDA0",), kv_on_host=True))
    assert cached_elsewhere.weights_key == model.footprint(WHOLE).weights_key


def test_the_host_is_the_last_choice_and_slower_parts_are_left_out(files: ModelFiles) -> None:
    quick, slow = device("CUDA0"), device("RPC0", backend="RPC")
    model = placeable(files, quick, slow)
    shared = [Placement(devices=(name,), cpu_moe_layers=LAYERS) for name in ("CUDA0", "RPC0")]
    found = model.choices([ON_HOST, *shared, Placement(devices=("RPC0",)), WHOLE])
    assert [each.placement for each in found] == [WHOLE, Placement(devices=("RPC0",)), shared[0], ON_HOST]
    times = [each.token_s for each in found]
    assert times == sorted(times)
    assert found[0].tokens_per_s == pytest.approx(1 / times[0])


def test_a_single_placement_is_compared_with_none(files: ModelFiles) -> None:
    (only,) = placeable(files).choices([WHOLE])
    assert only.token_s == 0
    assert only.tokens_per_s is None


def test_without_the_host_the_fastest_placement_is_first(files: ModelFiles) -> None:
    few, many = Placement(devices=("CUDA0",), gpu_layers=3), Placement(devices=("CUDA0",), gpu_layers=20)
    assert [each.placement for each in placeable(files).choices([few, many])] == [many, few]


def test_a_device_that_is_faster_than_a_small_part_of_the_host_does_not_move_the_host_from_its_place(
    files: ModelFiles,
) -> None:
    far = device("RPC0", backend="RPC")
    split = Placement(devices=("RPC0",), kv_on_host=True)
    model = placeable(files, far)
    first, last = model.choices([split, ON_HOST])
    assert (first.placement, last.placement) == (split, ON_HOST)
    assert last.token_s >= first.token_s


@pytest.mark.parametrize(
    "unified", [device("Vulkan0", "igpu", "Vulkan"), device("MTL0", "gpu", "MTL"), device("Metal", "gpu", "Metal")]
)
def test_memory_that_a_device_shares_with_the_host_is_the_hosts(files: ModelFiles, unified: LlamaDevice) -> None:
    assert pool_of(unified) == "host"
    assert speed_of(unified).bytes_per_s < speed_of(device("CUDA0")).bytes_per_s
    model = placeable(files, unified)
    taken = model.footprint(Placement(devices=(unified.name,)))
    apart = placeable(files, device(unified.name)).footprint(Placement(devices=(unified.name,)))
    assert taken.devices == ()
    assert taken.host_bytes == apart.total_bytes


def test_what_llama_cpp_has_planned_counts_in_place_of_the_prediction(files: ModelFiles) -> None:
    planned = {WHOLE: {"CUDA0": DeviceBytes(100, 20, 3), "host": DeviceBytes(50, 0, 1, 1)}}
    whole = placeable(files, known=planned).footprint(WHOLE)
    assert whole.devices == (DeviceShare("CUDA0", whole.weights_key, 100, 23),)


def test_a_projector_is_on_the_main_device(files: ModelFiles) -> None:
    sees = ModelFiles(files.paths, files.header, files.size_bytes, "", "Q4_K", projector_bytes=1 << 20)
    seeing, blind = placeable(sees), placeable(files)
    for placement in (WHOLE, Placement(devices=("CUDA0", "CUDA1"), split=(0.0, 1.0))):
        shares = {each.pool: each for each in seeing.footprint(placement).devices}
        others = {each.pool: each for each in blind.footprint(placement).devices}
        without = others["CUDA0"].total_bytes if "CUDA0" in others else 0
        assert shares["CUDA0"].total_bytes == without + (2 << 20)


def test_a_token_takes_longer_the_more_of_the_model_is_on_the_host_and_the_more_devices_it_crosses(
    files: ModelFiles,
) -> None:
    model = placeable(files).model
    speeds = {name: speed_of(device(name)) for name in ("CUDA0", "CUDA1")}

    def seconds(**placement: object) -> float:
        return token_seconds(model, Placement(**{"devices": ("CUDA0",), **placement}), speeds)  # type: ignore[arg-type]

    whole, split = seconds(), seconds(devices=("CUDA0", "CUDA1"), split=(12.0, 13.0))
    halves = [seconds(gpu_layers=layers) for layers in (20, 12, 4)]
    host = token_seconds(model, ON_HOST, {})
    assert whole < split < halves[0] < halves[1] < halves[2] < host
    assert whole < seconds(cpu_moe_layers=4) < seconds(cpu_moe_layers=20) < host
    assert whole < seconds(kv_on_host=True)


def test_adapters_count_where_the_weights_are() -> None:
    shares = (DeviceShare("CUDA0", "k", 300, 20), DeviceShare("CUDA1", "k", 100, 10), DeviceShare("CUDA0", "d", 50, 5))
    whole = Footprint("k", 80, 50, devices=shares, placement=Placement(devices=("CUDA0", "CUDA1")))
    added = whole.with_added(40)
    assert [share.context_bytes for share in added.devices] == [50, 20, 5]
    assert added.context_bytes == 50
    assert added.with_added(-40) == whole
    divided = replace(whole, weights_bytes=400, placement=Placement(devices=("CUDA0", "CUDA1"), gpu_layers=4))
    assert [share.context_bytes for share in divided.with_added(40).devices] == [35, 15, 5]
    assert divided.with_added(40).context_bytes == 70
    assert Footprint("k", 100, 50).with_added(40).context_bytes == 90


def test_a_footprint_is_raised_to_what_was_measured_on_each_device() -> None:
    predicted = Footprint(
        "k", 100, 50, devices=(DeviceShare("CUDA0", "k", 1000, 200), DeviceShare("CUDA0", "d", 10, 5))
    )
    allocated = {"CUDA0": DeviceBytes(1010, 150, 60), "CUDA1": DeviceBytes(0, 7, 0), "host": DeviceBytes(90, 20, 9, 40)}
    measured = predicted.measured(1100, 217, allocated, {"CUDA0", "CUDA1"})
    assert measured.devices == (
        DeviceShare("CUDA0", "k", 1010, 205),
        DeviceShare("CUDA0", "d", 10, 5),
        DeviceShare("CUDA1", "k", 0, 7),
    )
    assert (measured.weights_bytes, measured.context_bytes) == (100, 60)
    assert measured.exceeds(predicted)
    assert not predicted.exceeds(measured)


def test_without_devices_of_their_own_all_bytes_are_the_hosts() -> None:
    predicted = Footprint("k", 100, 50)
    unified = {"MTL0": DeviceBytes(120, 30), "host": DeviceBytes(10, 0, 0, 40)}
    assert predicted.measured(130, 70, unified, ()) == Footprint("k", 130, 70)
    assert predicted.measured(90, 40, {}, ()) == predicted
