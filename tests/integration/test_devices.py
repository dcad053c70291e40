"""Models on devices, which are made of llama.cpp itself: see ``support.rpc_devices``.

Greedy texts are equal to those of the processor, because these devices compute with its kernels. On others they may
differ as docs/architecture.md says ("Whether an answer repeats").
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelyard.config import validate_config
from modelyard.engine.chat.template_processes import TemplateProcesses
from modelyard.engine.hosts.device_list import list_devices
from modelyard.engine.hosts.dry_load import run_dry_load
from modelyard.engine.hosts.journal import open_journal
from modelyard.engine.hosts.process_engine import EngineProcesses
from modelyard.engine.placing import divided_by_free_memory
from modelyard.engine.settings import EngineSettings
from modelyard.errors import UnusableModel
from modelyard.formats.gguf.read import read_header
from modelyard.hub import FilePlan, ModelFiles, estimate_files
from modelyard.protocol.events import Died
from modelyard.protocol.placement import ON_HOST, DeviceBytes, Placement
from modelyard.protocol.requests import Stop
from modelyard.yard.from_config import stores_of
from modelyard.yard.memory.placed_footprint import placed_bytes
from modelyard.yard.memory.prediction import ContextSettings
from modelyard.yard.runtime.device_estimate import DeviceEstimate, estimate_devices
from modelyard.yard.runtime.model_spec import ModelSpec, plan_of
from support.engine_driver import Driven
from support.rpc_devices import RpcDevices, rpc_devices
from support.server import serving
from support.sparse_models import write_dense, write_experts

MIB = 1 << 20
SIZES = (600 * MIB, 300 * MIB)
# What loads leave free of devices of this size.
RESERVE = 256 * MIB
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def devices() -> Iterator[RpcDevices]:
    with rpc_devices(*SIZES) as running, pytest.MonkeyPatch.context() as patch:
        for variable, value in running.environment.items():
            patch.setenv(variable, value)
        yield running


@contextmanager
def engine_processes(folder: Path) -> Iterator[EngineProcesses]:
    """Processes of engines, which have the devices that are running; the process of the tests does not."""
    journal, templates = open_journal(folder), TemplateProcesses()
    made = EngineProcesses(journal, templates)
    try:
        yield made
    finally:
        made.close()
        templates.close()
        journal.close()


@pytest.fixture(scope="module")
def processes(devices: RpcDevices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcesses]:
    with engine_processes(tmp_path_factory.mktemp("journal")) as made:
        yield made


def text_of(engine: Driven) -> str:
    engine.submit(1, PROMPT, max_tokens=24)
    engine.until(lambda: 1 in engine.ended)
    return engine.texts[1]  # type: ignore[index]


@pytest.fixture(scope="module")
def text_of_processor(devices: RpcDevices, processes: EngineProcesses, weights: dict[str, Path]) -> str:
    engine = Driven(weights["smollm2"], processes=processes, placement=ON_HOST)
    text = text_of(engine)
    engine.stopped(Stop())
    assert devices.used_bytes() == {"RPC0": 0, "RPC1": 0}
    return text


def planned(path: Path, placement: Placement, **settings: Any) -> Mapping[str, DeviceBytes]:
    chosen = {"context_length": 2048, "max_seqs": 4, "prefix_slots": 4} | settings
    found = run_dry_load(EngineSettings("test", (path,), "", placement=placement, **chosen))
    assert found is not None
    return found


def test_devices_have_names_kinds_and_memory_of_their_own(devices: RpcDevices):
    found = {device.name: device for device in list_devices()}
    assert [found[name].kind for name in devices.names] == ["gpu", "gpu"]
    assert [found[name].total_bytes for name in devices.names] == list(SIZES)
    assert found["RPC0"].backend == "RPC"


@pytest.mark.parametrize(
    ("placement", "used"),
    [
        pytest.param(Placement(devices=("RPC0",)), {"RPC0"}, id="whole on one"),
        pytest.param(Placement(split=(1.0, 1.0)), {"RPC0", "RPC1"}, id="split over two"),
        pytest.param(Placement(devices=("rpc1",), gpu_layers=11), {"RPC1"}, id="partly on the host"),
        pytest.param(Placement(devices=("RPC0",), kv_on_host=True), {"RPC0"}, id="cache on the host"),
        pytest.param(
            Placement(devices=("RPC0",), tensor_overrides=((r"blk\.\d+\.ffn_", "host"), (r"attn_q", "host"))),
            {"RPC0"},
            id="tensors on the host",
        ),
        pytest.param(Placement(split_mode="none", main_device=1), {"RPC1"}, id="a main device"),
        pytest.param(Placement(devices=("RPC1",), mmap=False), {"RPC1"}, id="not mapped"),
    ],
)
def test_a_model_answers_the_same_wherever_it_is_and_takes_what_was_planned(
    placement: Placement,
    used: set[str],
    devices: RpcDevices,
    processes: EngineProcesses,
    weights: dict[str, Path],
    text_of_processor: str,
):
    plan = planned(weights["smollm2"], placement)
    assert {name for name, each in plan.items() if each.total} == {*used, "host"}
    assert devices.used_bytes() == {"RPC0": 0, "RPC1": 0}, "a plan takes nothing"
    engine = Driven(weights["smollm2"], processes=processes, placement=placement)
    assert text_of(engine) == text_of_processor
    allocated = devices.used_bytes()
    assert {name for name, size in allocated.items() if size} == used
    for name in used:
        assert plan[name].total == pytest.approx(allocated[name], rel=0.03)
    assert engine.profile is not None
    measured = dict(engine.profile.device_bytes)
    assert set(measured) == {*used, "host"}
    for name in used:
        assert measured[name].total == pytest.approx(allocated[name], rel=0.001)
        assert measured[name].weights == pytest.approx(plan[name].weights, rel=0.001, abs=10_000)
        assert measured[name].kv == plan[name].kv
    engine.stopped(Stop())
    assert devices.used_bytes() == {"RPC0": 0, "RPC1": 0}


def test_a_device_that_does_not_exist_is_refused_with_those_that_do(
    processes: EngineProcesses, weights: dict[str, Path]
):
    engine = Driven(weights["smollm2"], processes=processes, placement=Placement(devices=("CUDA0",)))
    with pytest.raises(AssertionError, match=r"CUDA0.*There are: 0 \(RPC0\), 1 \(RPC1\)"):
        engine.until(lambda: engine.profile is not None)


def test_a_model_that_does_not_fit_fails_to_load_and_leaves_nothing_behind(
    devices: RpcDevices, processes: EngineProcesses, weights: dict[str, Path]
):
    placement = Placement(devices=("RPC1",))
    plan = planned(weights["smollm2"], placement, context_length=16384)
    assert plan["RPC1"].total > SIZES[1]
    engine = Driven(weights["smollm2"], processes=processes, placement=placement, context_length=16384)
    with pytest.raises(AssertionError, match="LoadFailed"):
        engine.until(lambda: engine.profile is not None)
    assert devices.used_bytes() == {"RPC0": 0, "RPC1": 0}


def test_engines_on_the_same_weights_share_them_on_a_device(
    devices: RpcDevices, processes: EngineProcesses, weights: dict[str, Path]
):
    placement = Placement(devices=("RPC0",))
    first = Driven(weights["smollm2"], processes=processes, placement=placement)
    text_of(first)
    alone = devices.used_bytes()["RPC0"]
    second = Driven(weights["smollm2"], processes=processes, placement=placement)
    text_of(second)
    plan = planned(weights["smollm2"], placement)["RPC0"]
    assert devices.used_bytes()["RPC0"] - alone == pytest.approx(plan.total - plan.weights, rel=0.03)
    first.stopped(Stop())
    second.stopped(Stop())


def test_a_plan_of_a_file_that_is_no_model_says_why(tmp_path: Path, devices: RpcDevices):
    path = tmp_path / "no.gguf"
    path.write_bytes(b"no model")
    with pytest.raises(UnusableModel, match=r"llama\.cpp cannot load no\.gguf"):
        planned(path, ON_HOST)


@pytest.fixture(scope="module")
def models(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sparse")
    return {
        **weights,
        "experts": write_experts(folder / "experts.gguf"),
        "dense": write_dense(folder / "dense.gguf"),
    }


@pytest.mark.parametrize("model", ["smollm2", "gemma3", "experts", "dense"])
@pytest.mark.parametrize(
    "placement",
    [
        pytest.param(Placement(devices=("RPC0", "RPC1"), split=(2.0, 1.0)), id="split over two"),
        pytest.param(Placement(devices=("RPC0",), gpu_layers=11), id="partly on the host"),
        pytest.param(ON_HOST, id="on the host", marks=pytest.mark.long),
        pytest.param(Placement(devices=("RPC0",)), id="whole on one", marks=pytest.mark.long),
        pytest.param(
            Placement(devices=("RPC0", "RPC1"), gpu_layers=12, split=(7.0, 5.0)),
            id="on two and the host",
            marks=pytest.mark.long,
        ),
        pytest.param(Placement(devices=("RPC0",), cpu_moe_layers=9), id="experts on the host", marks=pytest.mark.long),
    ],
)
def test_the_prediction_from_the_header_is_what_llama_cpp_plans(
    model: str, placement: Placement, models: dict[str, Path], devices: RpcDevices
):
    plan = planned(models[model], placement, context_length=4096, max_seqs=8)
    context = ContextSettings(context_length=4096, running=8, sequences=12, batch_tokens=512)
    predicted = placed_bytes(read_header(models[model]), placement, context)
    assert set(predicted) == set(plan)
    for name, each in plan.items():
        assert predicted[name].weights == pytest.approx(each.weights, rel=0.001)
        assert predicted[name].kv == each.kv
        assert predicted[name].total == pytest.approx(each.total, rel=0.03)


def test_a_device_that_is_lost_ends_those_who_use_it_and_no_others(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with rpc_devices(*SIZES) as own, engine_processes(tmp_path) as made:
        # The process that starts those of engines is started with the first engine.
        for variable, value in own.environment.items():
            monkeypatch.setenv(variable, value)
        first, second = (
            Driven(weights["smollm2"], processes=made, placement=Placement(devices=(name,))) for name in own.names
        )
        text = text_of(first)
        assert text_of(second) == text
        assert {device.name for device in list_devices()} == {"CPU", *own.names}
        own.kill(1)
        assert {device.name for device in list_devices()} == {"CPU", own.names[0]}
        second.submit(2, PROMPT)
        second.until(lambda: second.over is not None)
        assert isinstance(second.over, Died)
        assert first.answer(PROMPT, number=2, max_tokens=24) == text
        first.stopped(Stop())


def resolved(*arguments: str | Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "modelyard", "resolve", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_resolve_shows_what_a_model_takes_of_each_device(devices: RpcDevices, weights: dict[str, Path]):
    found = resolved(weights["smollm2"], "--devices", "rpc1,RPC0", "--tensor-split", "1,2", "--ctx", "2048")
    placement = Placement(devices=("RPC1", "RPC0"), split=(1.0, 2.0))
    plan = planned(weights["smollm2"], placement, max_seqs=32, prefix_slots=16)
    assert found["devices_are_planned"]
    assert found["devices"] == [
        {
            "name": name,
            "weights_bytes": plan[name].weights,
            "kv_bytes": plan[name].kv,
            "buffer_bytes": plan[name].compute,
            "free_bytes": size,
            "budget_bytes": size - RESERVE,
        }
        for name, size in zip(devices.names, SIZES, strict=True)
    ]
    # Where no key says how it is divided, it is whole on one device, as a server would put it.
    alone = resolved(weights["smollm2"])
    (only,) = alone["devices"]
    assert (alone["placement"], only["name"]) == ("RPC0", "RPC0")
    assert only["weights_bytes"] == sum(plan[name].weights for name in devices.names)
    assert alone["weights_bytes"] + alone["context_bytes"] < only["weights_bytes"] + only["kv_bytes"]
    on_host = resolved(weights["smollm2"], "--cpu")
    assert (on_host["devices"], on_host["placement"], on_host["is_fitting"]) == ([], "host", True)


def test_resolve_fits_the_context_to_the_devices(devices: RpcDevices, weights: dict[str, Path], tmp_path: Path):
    file = tmp_path / "models.toml"
    budgets = '[memory.devices]\nRPC0 = "200MiB"\nRPC1 = "1MiB"\n'
    model = f'[[models]]\nmodel_id = "{weights["smollm2"]}"\n'
    file.write_text(budgets + model)
    (fitted,) = resolved(file)
    (device,) = fitted["devices"]
    assert device["name"] == "RPC0"
    assert device["weights_bytes"] + device["kv_bytes"] + device["buffer_bytes"] <= 200 * MIB
    assert 4096 <= fitted["context_length"] < 8192
    assert fitted["context_reason"] == "shortened from 8,192, so that it fits the memory"


def test_resolve_shows_devices_in_a_table(devices: RpcDevices, weights: dict[str, Path]):
    command = [sys.executable, "-m", "modelyard", "resolve", str(weights["smollm2"]), "--devices", "RPC0"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert re.search(r"^Device +Weights +KV cache +Buffers +Together +Free +Budget$", shown, re.MULTILINE)
    assert re.search(r"^RPC0 +97 MB .* 629 MB +361 MB$", shown, re.MULTILINE)
    assert "RPC1" not in shown


def test_resolve_refuses_a_device_that_does_not_exist(devices: RpcDevices, weights: dict[str, Path]):
    command = [sys.executable, "-m", "modelyard", "resolve", str(weights["smollm2"]), "--devices", "CUDA0"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert refused.returncode
    assert "There are: 0 (RPC0), 1 (RPC1)." in refused.stderr


def test_what_is_not_here_is_predicted(devices: RpcDevices, weights: dict[str, Path]):
    config = validate_config({"models": [{"model_id": str(weights["smollm2"])}]})
    (model,) = config.models
    stores = stores_of(config)
    plan = plan_of(config, model, stores, lambda _: True)
    files = estimate_files(plan, stores)
    found = list_devices()
    placement = divided_by_free_memory(Placement(devices=devices.names), found)

    def estimated(plan: FilePlan, files: ModelFiles) -> tuple[tuple[DeviceEstimate, ...], bool]:
        return estimate_devices(ModelSpec(config, model), plan, stores, files, placement, found, {})

    here, is_planned = estimated(plan, files)
    remote, is_predicted = estimated(replace(plan, download_bytes=1), files)
    assert (is_planned, is_predicted) == (True, False)
    assert [each.total_bytes for each in remote] == pytest.approx([each.total_bytes for each in here], rel=0.03)
    # A first shard does not have the tensors of the others.
    shard = replace(files, parameter_count=None)
    assert not estimated(replace(plan, download_bytes=1), shard)[0]


def test_a_server_shows_what_a_model_takes_of_each_device(devices: RpcDevices, weights: dict[str, Path]):
    both = {"max_seq_len": 2048, "tensor_split": [1, 1]}
    models = [{"model_id": str(weights["smollm2"]), "alias": "m", "device": both}]
    memory = {"devices": {"0": 1.0, "1": 1.0}}
    config = validate_config({"models": models, "memory": memory, "runtime": {"isolation": "process"}})
    with serving(config) as server:

        def shown() -> dict[str, int]:
            taken: dict[str, int] = server.get("/v1/models/m").json().get("device_bytes", {})
            held = server.get("/api/ps").json()["models"]
            assert [model["size_vram"] for model in held] == ([sum(taken.values())] if held else [])
            return taken

        assert server.post("/v1/models/unload", {"model_id": "m"}).status_code == 200
        assert shown() == {}
        assert server.post("/v1/models/reload", {"model_id": "m"}).status_code == 200
        assert shown() == pytest.approx(devices.used_bytes(), rel=0.001)
        assert all(devices.used_bytes().values())
        assert server.post("/v1/models/unload", {"model_id": "m", "mode": "park"}).status_code == 200
        assert shown() == pytest.approx(devices.used_bytes(), rel=0.001)
        assert all(devices.used_bytes().values())
    assert devices.used_bytes() == {"RPC0": 0, "RPC1": 0}


PROGRAM = """
import sys
from modelyard import ModelBuilder
from modelyard.errors import ConfigError
try:
    ModelBuilder(sys.argv[1]).with_devices("CUDA7").build()
except ConfigError as refused:
    print(refused)
with ModelBuilder(sys.argv[1]).with_devices("RPC0").with_max_seq_len(2048).build() as model:
    print(open(sys.argv[2], "rb").read())
"""


def test_a_builder_puts_its_model_on_a_device_which_is_tried_there_before(
    devices: RpcDevices, weights: dict[str, Path], tmp_path: Path
):
    arguments = [sys.executable, "-c", PROGRAM, str(weights["smollm2"]), str(devices.used[0])]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True, timeout=120)
    refused, used = done.stdout.strip().rsplit("\n", 1)
    assert "'CUDA7', which does not exist. There are: 0 (RPC0), 1 (RPC1)." in refused
    plan = planned(weights["smollm2"], Placement(devices=("RPC0",)), max_seqs=32, prefix_slots=16)["RPC0"]
    assert int.from_bytes(ast.literal_eval(used), sys.byteorder) == pytest.approx(plan.total, rel=0.03)
