"""From a safetensors checkpoint to a model that is served: converted, quantised, and kept."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gguf_file import GgufFile

from modelyard.config import Config, validate_config
from modelyard.hub import ConvertedModels, FileRequest, ModelFiles, Stores, plan_files, resolve
from modelyard.hub.sources.llama_converter import child_environment
from support.checkpoints import random_checkpoint
from support.converting import WAIT_S, Ending, children, peak_bytes
from support.hub import serving_hub
from support.server import RunningServer, serving

# A busy machine may take long over a conversion, which leaves the cores to others.
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
# The GGUF's kernels round activations to 8 bits: where two words are all but equally likely, it may say the other.
QUESTION = "What is gravity?"
MIB = 2**20
F16, Q8_0 = 1, 7


def config(*models: dict[str, Any]) -> Config:
    return validate_config({"models": list(models), "runtime": {"max_seqs": 2}}, source="test", base=ROOT)


def entry(model: Path | str, name: str, load: str = "startup", **quantization: str) -> dict[str, Any]:
    return {
        "model_id": str(model),
        "alias": name,
        "load": load,
        "quantization": quantization,
        "device": {"max_seq_len": 512},
    }


def answer(server: RunningServer, model: str, most: int = 24) -> str:
    with server.client() as client:
        reply = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=most
        )
    return reply.choices[0].message.content or ""


# What becomes of the weights


def perplexity(path: Path) -> float:
    program = ROOT / "tests" / "support" / "perplexity.py"
    said = subprocess.run(
        [sys.executable, program, path], stdout=subprocess.PIPE, text=True, timeout=WAIT_S, check=True
    )
    return float(said.stdout)


@pytest.fixture(scope="session")
def full_perplexity(made: Callable[..., ModelFiles]) -> float:
    return perplexity(made().paths[0])


@pytest.mark.long
def test_full_precision_has_the_weights_that_llama_cpp_reads_from_the_gguf(
    weights: dict[str, Path], made: Callable[..., ModelFiles], tmp_path: Path
):
    peak_bytes("quantize", weights["smollm2"], tmp_path / "expanded.gguf", str(F16))
    expected = {tensor.name: tensor.data for tensor in GgufFile(tmp_path / "expanded.gguf").tensors}
    found = {tensor.name: tensor.data for tensor in GgufFile(made().paths[0]).tensors}
    assert found.keys() == expected.keys()
    # Norms become floats of 32 bits by way of 16.
    assert all(np.allclose(found[name], expected[name], rtol=2**-10, atol=0) for name in found)
    assert all(np.array_equal(found[name], expected[name]) for name in found if "norm" not in name)


@pytest.mark.parametrize(("level", "loss"), [("8", 0.02), pytest.param("4", 0.15, marks=pytest.mark.long)])
def test_a_level_costs_little_quality(made: Callable[..., ModelFiles], full_perplexity: float, level: str, loss: float):
    assert perplexity(made(isq=level).paths[0]) == pytest.approx(full_perplexity, rel=loss)


@pytest.mark.usefixtures("user_cache")
def test_the_server_answers_from_the_checkpoint_as_from_the_gguf(
    checkpoint: Path, weights: dict[str, Path], made: Callable[..., ModelFiles]
):
    for keys in ({}, {"isq": "8"}, {"isq": "4"}):
        made(**keys)
    models = (
        entry(weights["smollm2"], "gguf"),
        entry(checkpoint, "full"),
        entry(checkpoint, "eight", isq="8"),
        entry(checkpoint, "four", isq="4"),
    )
    with serving(config(*models)) as server:
        assert answer(server, "full") == answer(server, "gguf")
        assert all("gravity" in answer(server, name).lower() for name in ("full", "eight", "four"))
        listed = {model["id"]: model for model in server.get("/v1/models").json()["data"]}
    assert [listed[name]["quantization"] for name in ("full", "eight", "four")] == ["F16", "Q8_0", "Q4_K_M"]


@pytest.mark.long
def test_dtype_is_the_precision_of_the_weights_and_is_quantised_without_another_conversion(
    weights: dict[str, Path], tiny_checkpoint: Path, tmp_path: Path
):
    converted = ConvertedModels(tmp_path / "converted")
    stores = Stores(converted=converted)
    steps: list[str] = []

    def types_of(**keys: Any) -> set[str]:
        steps.clear()
        (path,) = resolve(
            FileRequest(str(tiny_checkpoint), **keys), stores, lambda now: steps.append(now.step) or True
        ).paths
        return {tensor.tensor_type.name for tensor in GgufFile(path).tensors if len(tensor.shape) > 1}

    # What is there in the precision that was published is not what is asked for.
    with converted.locked(plan_files(FileRequest(str(tiny_checkpoint)), stores).key, lambda _: True) as place:
        made = shutil.copyfile(weights["smollm2"], place / "made")
        published = converted.complete(place, made, name="published.gguf", source="Tiny", label="BF16")
    assert types_of(dtype="f32") == {"F32"}
    assert "reading the checkpoint" in steps
    converted.delete(published)
    assert "Q8_0" in types_of(isq="8")
    assert "quantising" in steps
    assert "reading the checkpoint" not in steps


# Memory


@pytest.mark.long
def test_a_conversion_takes_little_more_than_twice_its_largest_tensor(checkpoint: Path, tmp_path: Path):
    folder = random_checkpoint(tmp_path / "large", checkpoint, vocabulary=49152, width=2048)
    largest = 49152 * 2048 * 2
    full = tmp_path / "full.gguf"
    # What is beside the tensor is torch and transformers; the promise has room for 1 GiB.
    assert peak_bytes("checkpoint", folder, full, "--name", "large") < 2 * largest + 600 * MIB
    assert peak_bytes("quantize", full, tmp_path / "q.gguf", str(Q8_0)) < 2 * largest + 600 * MIB


TWICE = """
import sys
from modelyard.converter import checkpoint, slices
folder, ours, theirs = sys.argv[1:]
checkpoint.main([folder, ours, "--name", "x"])
slices.widen_while_reading = slices.write_by_parts = lambda _: None
checkpoint.main([folder, theirs, "--name", "x"])
"""


@pytest.mark.long
def test_weights_that_are_written_by_parts_are_those_of_upstreams_converter(checkpoint: Path, tmp_path: Path):
    folder = random_checkpoint(tmp_path / "experts", checkpoint, vocabulary=49152, width=128, layers=2, experts=3)
    files = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    subprocess.run(
        [sys.executable, "-c", TWICE, folder, *files],
        env=child_environment(),
        check=True,
        capture_output=True,
        timeout=WAIT_S,
    )
    assert files[0].read_bytes() == files[1].read_bytes()


# At once, and given up

RESOLVE = """
import sys
from pathlib import Path
from modelyard.hub import ConvertedModels, Stores, FileRequest, resolve
model, folder = sys.argv[1:]
def show(progress):
    print(progress.step, flush=True)
    return True
print(resolve(FileRequest(model, isq="8"), Stores(converted=ConvertedModels(Path(folder))), show).paths[0])
"""


def test_two_processes_that_want_the_same_make_it_once(made: Callable[..., ModelFiles], tmp_path: Path):
    command = [sys.executable, "-c", RESOLVE, made().paths[0], tmp_path / "converted"]

    def run(_: int) -> list[str]:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=WAIT_S, check=True)
        return done.stdout.splitlines()

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(run, range(2))
    assert one[-1] == other[-1]
    assert Path(one[-1]).is_file()
    assert sum("quantising" in said for said in (one, other)) == 1
    assert len(ConvertedModels(tmp_path / "converted").list()) == 1


def converting(pid: int) -> list[int]:
    """The converters among the children of a process."""
    return [child for child in children(pid) if b"modelyard.converter" in Path(f"/proc/{child}/cmdline").read_bytes()]


class Events:
    """What /v1/models/events says, as it comes."""

    def __init__(self, server: RunningServer) -> None:
        self._url = f"{server.url}/v1/models/events"

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with httpx.stream("GET", self._url, timeout=WAIT_S) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))


@pytest.mark.long
@pytest.mark.usefixtures("user_cache")
def test_a_model_is_quantised_while_another_serves(
    checkpoint: Path, weights: dict[str, Path], made: Callable[..., ModelFiles], cache: Path
):
    made()
    stores = Stores(converted=ConvertedModels(cache / "modelyard" / "converted"))
    key = plan_files(FileRequest(str(checkpoint), isq="q5_0"), stores).key
    models = config(entry(weights["smollm2"], "there"), entry(checkpoint, "coming", load="on-demand", isq="q5_0"))
    with serving(models) as server, ThreadPoolExecutor(1) as pool:
        # As if another server was at it: it cannot be done before we have looked.
        with stores.converted.locked(key, lambda _: True):
            late = pool.submit(answer, server, "coming")
            waiting = next(event for event in Events(server) if "waiting for another" in event.get("stage", ""))
            assert waiting["model_id"] == "coming"
            shown = server.get("/v1/models/coming").json()
            assert (shown["status"], shown["stage"][:19]) == ("reloading", "waiting for another")
            assert answer(server, "there") != ""
        steps = {event.get("stage") for event in _until_loaded(server, "coming")}
        assert late.result(WAIT_S) != ""
        assert "quantising" in steps
        assert "stage" not in server.get("/v1/models/coming").json()


def _until_loaded(server: RunningServer, model: str) -> Iterator[dict[str, Any]]:
    for event in Events(server):
        if event["model_id"] == model:
            yield event
            if event["status"] == "loaded":
                return


@pytest.mark.usefixtures("user_cache")
def test_a_server_that_stops_gives_a_quantisation_up(
    checkpoint: Path, weights: dict[str, Path], made: Callable[..., ModelFiles], cache: Path
):
    made()
    converted = ConvertedModels(cache / "modelyard" / "converted")
    before = converted.list()
    models = config(entry(weights["smollm2"], "there"), entry(checkpoint, "coming", load="on-demand", isq="q2k"))
    with ThreadPoolExecutor(1) as pool:
        with serving(models) as server:
            late = pool.submit(server.post, "/v1/models/reload", {"model_id": "coming"})
            next(event for event in Events(server) if event.get("stage") == "quantising")
            ending = Ending(converting(os.getpid()))
        assert ending.wait()
        assert late.result(WAIT_S).status_code >= 500
    assert converted.list() == before


# From the hub


def test_a_repository_of_safetensors_is_served_by_its_id(tiny_checkpoint: Path, tmp_path: Path):
    with serving_hub() as hub:
        hub.add("org/tiny", {path.name: path for path in tiny_checkpoint.iterdir()})
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "modelyard", "serve", "-m", "org/tiny", "--isq", "8", "--port", "0"),
                *("--ctx", "256", "--no-supervisor"),
            ],
            env={
                **os.environ,
                "HF_ENDPOINT": hub.url,
                "HF_HUB_CACHE": str(tmp_path / "hub"),
                "XDG_CACHE_HOME": str(tmp_path / "cache"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        killer = threading.Timer(WAIT_S, process.kill)
        killer.start()
        with process:
            try:
                assert process.stdout is not None
                greeting = ""
                for line in process.stdout:
                    greeting += line
                    if "Ctrl-C stops it" in line:
                        break
                found = re.search(r"http://[\d.]+:\d+/v1", greeting)
                assert found is not None, greeting
                body = {"model": "org/tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
                reply = httpx.post(f"{found[0]}/chat/completions", json=body, timeout=WAIT_S).json()
                assert reply["usage"]["completion_tokens"] > 0
            finally:
                killer.cancel()
                process.kill()
        assert any("model.safetensors" in path for path in hub.downloads())
    (made,) = ConvertedModels(tmp_path / "cache" / "modelyard" / "converted").list()
    assert made.label == "Q8_0"
