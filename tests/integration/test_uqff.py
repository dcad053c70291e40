"""Models in UQFF, through upstream's converter and into the real engine."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoint as demo_checkpoint
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize as dequantize_ggml
from gguf.quants import quantize
from gguf_file import GgufFile

from modelyard.config import validate_config
from modelyard.converter.uqff.blocks import dequantize
from modelyard.errors import UnusableModel
from modelyard.formats.uqff.reader import read_uqff
from modelyard.hub import ConvertedModels, FileRequest, Hub, ModelFiles, Stores, estimate_files, plan_files, resolve
from support import uqff
from support.hub import serving_hub
from support.server import serving
from support.uqff import Tensors, array, blocks_of, make_uqff, safetensors, version

ROOT = Path(__file__).parent.parent.parent
RANDOM = np.random.default_rng(11)
# Converters leave the cores to all others: on a machine that is busy they may take minutes.
pytestmark = pytest.mark.timeout(400)

Q4_0, Q8_0 = Type.Q4_0, Type.Q8_0


@pytest.fixture(scope="module")
def checkpoint(weights: dict[str, Path]) -> Path:
    return demo_checkpoint.make(weights["smollm2"], ROOT / ".weights")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where this module's models are, and what is converted of them."""
    folder = tmp_path_factory.mktemp("uqff")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


def tensors_of(files: ModelFiles) -> dict[str, Any]:
    (path,) = files.paths
    return {tensor.name: tensor for tensor in GgufFile(path).tensors}


# A whole model


@pytest.fixture(scope="module")
def smol(folder: Path, checkpoint: Path, weights: dict[str, Path]) -> Path:
    """SmolLM2 with the blocks of its GGUF, in the order of transformers, in three shards."""
    return make_uqff(checkpoint, folder / "smol", blocks_of(weights["smollm2"]), shards=3)


@pytest.fixture(scope="module")
def converted(smol: Path) -> ModelFiles:
    return resolve(FileRequest(str(smol), from_uqff="q4_1"))


def test_the_blocks_of_the_gguf_are_those_of_the_uqff(converted: ModelFiles, weights: dict[str, Path]):
    assert converted.quantization == "Q4_1"
    assert converted.reason == "q4_1-0.uqff and 2 more shards: UQFF of the type q4_1."
    made = tensors_of(converted)
    original = {tensor.name: tensor for tensor in GgufFile(weights["smollm2"]).tensors}
    assert made.keys() == original.keys()
    for name, tensor in original.items():
        assert made[name].tensor_type == tensor.tensor_type, name
        assert made[name].data.tobytes() == tensor.data.tobytes(), name


def test_a_model_in_uqff_answers_as_the_gguf_with_the_same_blocks(
    converted: ModelFiles, smol: Path, weights: dict[str, Path]
):
    models = [
        {"model_id": str(smol), "alias": "uqff", "quantization": {"from_uqff": "q4_1-2.uqff"}},
        {"model_id": str(weights["smollm2"]), "alias": "gguf"},
    ]
    config = validate_config(
        {"models": [{**model, "device": {"max_seq_len": 512}} for model in models]}, source="test", base=ROOT
    )
    ask = {"messages": [{"role": "user", "content": "Name three colours."}], "max_tokens": 24, "temperature": 0}
    with serving(config) as server:
        answers = [server.post("/v1/chat/completions", {"model": name, **ask}).json() for name in ("uqff", "gguf")]
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert len(texts[0]) > 20
    assert texts[0] == texts[1]


def test_a_shard_may_be_named_itself(converted: ModelFiles, smol: Path):
    assert resolve(FileRequest(str(smol / "q4_1-1.uqff"))).paths == converted.paths


def test_a_prediction_needs_no_weights(smol: Path, converted: ModelFiles, tmp_path: Path):
    plan = plan_files(FileRequest(str(smol), quant="q4_1"), Stores(converted=ConvertedModels(tmp_path)))
    assert not plan.is_ready
    predicted = estimate_files(plan, Stores())
    assert predicted.quantization == "Q4_1"
    assert abs(predicted.size_bytes - converted.size_bytes) < 0.05 * converted.size_bytes
    assert predicted.header.architecture == "estimated"


# Small models of random weights

WIDTH, HIDDEN, VOCABULARY = 256, 512, 49152
LAYER = "model.layers.0"


def weights_of(*shape: int) -> np.ndarray:
    return (RANDOM.standard_normal(shape) * 0.05).astype(np.float16)


def small_model(folder: Path, like: Path, layers: Tensors, residual: Tensors, stem: str, **config: Any) -> Path:
    """A model of one layer in UQFF, its embeddings and the same once more as its outputs among them."""
    folder.mkdir()
    values = weights_of(VOCABULARY, WIDTH)
    embedding = uqff.ggml("model.embed_tokens", quantize(values.astype(np.float32), Q8_0).tobytes(), Q8_0, values.shape)
    ones = array(np.ones(WIDTH, np.float32))
    norms = {f"{LAYER}.{name}_layernorm.weight": ones for name in ("input", "post_attention")}
    head = {name.replace("model.embed_tokens", "lm_head"): tensor for name, tensor in embedding.items()}
    (folder / f"{stem}-0.uqff").write_bytes(safetensors(version() | layers | embedding | head))
    (folder / "residual.safetensors").write_bytes(safetensors(norms | {"model.norm.weight": ones} | residual))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(like / name, folder / name)
    facts = json.loads((like / "config.json").read_text("utf-8")) | {
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        **config,
    }
    (folder / "config.json").write_text(json.dumps(facts), "utf-8")
    return folder


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Queries or keys in the order of GGUF, which rotates neighbours and not the two halves of a head."""
    return rows.reshape(heads, 2, len(rows) // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def decoded(folder: Path) -> dict[str, np.ndarray]:
    return {layer.prefix: dequantize(layer) for layer in read_uqff(folder.glob("*.uqff"))}


def answers(path: Path) -> str:
    config = validate_config(
        {"models": [{"model_id": str(path), "alias": "small", "device": {"max_seq_len": 256}}]},
        source="test",
        base=ROOT,
    )
    ask = {"model": "small", "prompt": "One two", "max_tokens": 4, "temperature": 0}
    with serving(config) as server:
        answer = server.post("/v1/completions", ask)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["finish_reason"])


# UQFF prefix -> encoder, GGUF name, type there, and by how much a weight may differ of the largest, beyond rounding.
Encoder = Callable[[str, np.ndarray], Tensors]
MIXED: dict[str, tuple[Encoder, tuple[int, int], str, str, float]] = {
    "self_attn.q_proj": (uqff.afq, (WIDTH, WIDTH), "attn_q", "Q4_1", 0.0),
    "self_attn.k_proj": (uqff.hqq, (WIDTH // 2, WIDTH), "attn_k", "Q4_K", 0.1),
    "self_attn.v_proj": (uqff.mxfp4, (WIDTH // 2, WIDTH), "attn_v", "MXFP4", 0.0),
    "self_attn.o_proj": (uqff.fp8, (WIDTH, WIDTH), "attn_output", "Q8_0", 0.01),
    "mlp.gate_proj": (uqff.f8q8, (HIDDEN, WIDTH), "ffn_gate", "Q8_0", 0.001),
    "mlp.up_proj": (lambda prefix, values: uqff.afq(prefix, values, bits=6), (HIDDEN, WIDTH), "ffn_up", "Q6_K", 0.05),
    "mlp.down_proj": (uqff.unquant, (WIDTH, HIDDEN), "ffn_down", "F16", 0.0),
}


def test_every_family_becomes_the_nearest_type_and_the_log_says_so(
    folder: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
):
    layers: Tensors = {}
    for name, (encode, shape, *_) in MIXED.items():
        layers |= encode(f"{LAYER}.{name}", weights_of(*shape))
    bias = weights_of(WIDTH)
    layers[f"{LAYER}.self_attn.q_proj.bias"] = array(bias)
    source = small_model(folder / "mixed", checkpoint, layers, {}, "afq4", attention_bias=True)
    with caplog.at_level(logging.WARNING):
        files = resolve(FileRequest(str(source), quant="4"))
    made, expected = tensors_of(files), decoded(source)
    for name, (_, _, gguf_name, kind, tolerance) in MIXED.items():
        tensor = made[f"blk.0.{gguf_name}.weight"]
        assert tensor.tensor_type.name == kind, name
        values = expected[f"{LAYER}.{name}"]
        if name.endswith(("q_proj", "k_proj")):
            values = permuted(values, 4 if name.endswith("q_proj") else 2)
        difference = np.abs(dequantize_ggml(tensor.data, tensor.tensor_type).astype(np.float32) - values).max()
        assert difference <= tolerance * np.abs(values).max(), name
    assert np.array_equal(made["blk.0.attn_q.bias"].data, permuted(bias[:, None], 4)[:, 0].astype(np.float32))
    assert "output.weight" not in made
    for line in (
        "1 tensors of the type afq4 become Q4_1, which has the same codes.",
        "1 tensors of the type hqq4 are quantised again, to Q4_K, which is the nearest of GGUF (the first is "
        "blk.0.attn_k.weight).",
    ):
        assert line in caplog.text
    assert answers(files.paths[0]) in ("length", "stop")


# Experts, from the hub

EXPERTS = {
    "gate_proj": (4, HIDDEN, WIDTH),
    "up_proj": (4, HIDDEN, WIDTH),
    "down_proj": (4, WIDTH, HIDDEN),
}


@dataclass(frozen=True)
class Published:
    """A mixture of experts that was published in UQFF, and what came of it.

    Attributes:
        blocks: of its experts, by the name of the layer.
        downloaded: names of the files that were fetched for it.
    """

    blocks: dict[str, bytes]
    files: ModelFiles
    downloaded: set[str]


@pytest.fixture(scope="module")
def published(folder: Path, checkpoint: Path, weights: dict[str, Path]) -> Published:
    layers: Tensors = {}
    for name, shape in EXPERTS.items():
        data = quantize(weights_of(*shape).astype(np.float32), Q4_0)
        layers |= uqff.ggml(f"{LAYER}.mlp.experts.{name}", data.tobytes(), Q4_0, shape)
    blocks = {name: layers[f"{LAYER}.mlp.experts.{name}.weight"][2] for name in EXPERTS}
    for name, rows in (("q", WIDTH), ("k", WIDTH // 2), ("v", WIDTH // 2), ("o", WIDTH)):
        layers |= uqff.afq(f"{LAYER}.self_attn.{name}_proj", weights_of(rows, WIDTH))
    router = weights_of(4, WIDTH)
    layers |= uqff.ggml(f"{LAYER}.mlp.gate", quantize(router.astype(np.float32), Q8_0).tobytes(), Q8_0, router.shape)
    residual = {f"{LAYER}.self_attn.{name}_norm.weight": array(np.ones(64, np.float32)) for name in "qk"}
    config = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": HIDDEN,
    }
    source = small_model(folder / "experts", checkpoint, layers, residual, "q4k", **config)
    (source / "q8_0-0.uqff").write_bytes(b"another type, which nobody asks for")
    outputs = [{"quant": kind, "shards": [f"{kind}-0.uqff"]} for kind in ("q4k", "q8_0")]
    report = {"schema": 1, "base_model": "org/tiny", "outputs": outputs}
    (source / "uqff_report.json").write_text(json.dumps(report), "utf-8")
    with serving_hub() as hub:
        hub.add("org/tiny", {"model.safetensors": b"", "config.json": b"{}"})
        hub.add("org/tiny-GGUF", {"tiny-Q4_K_M.gguf": weights["smollm2"]}, base_models=["org/tiny"])
        hub.add("mistralrs-community/tiny-UQFF", {path.name: path for path in source.iterdir()})
        stores = Stores(Hub(folder / "hub", endpoint=hub.url), ConvertedModels(folder / "from-hub"))
        wanted = FileRequest("org/tiny", quant="4", mirror_repos=("mistralrs-community/{name}-UQFF", "{repo}-GGUF"))
        files = resolve(wanted, stores)
        assert plan_files(wanted, stores).is_ready
        return Published(blocks, files, {path.rpartition("/")[2].partition(" ")[0] for path in hub.downloads()})


def test_a_published_uqff_comes_before_a_published_gguf(published: Published):
    assert published.files.quantization == "Q4_0"
    assert published.files.paths[0].name == "tiny-UQFF-Q4_0.gguf"
    assert {"q4k-0.uqff", "residual.safetensors", "tokenizer.json"} <= published.downloaded
    assert not published.downloaded & {"q8_0-0.uqff", "tiny-Q4_K_M.gguf", "model.safetensors"}


def test_the_experts_of_a_block_are_one_tensor(published: Published):
    made = tensors_of(published.files)
    for name, shape in EXPERTS.items():
        tensor = made[f"blk.0.ffn_{name.removesuffix('_proj')}_exps.weight"]
        assert tuple(tensor.shape) == shape[::-1]
        assert tensor.data.tobytes() == published.blocks[name]
    # llama.cpp keeps it in single precision.
    assert made["blk.0.ffn_gate_inp.weight"].tensor_type == Type.F32
    assert answers(published.files.paths[0]) in ("length", "stop")


def test_a_damaged_shard_is_refused_before_the_converter_starts(folder: Path, checkpoint: Path):
    layers = uqff.afq("a", weights_of(2, 64)) | {"a.weight.bits": uqff.u8(7)}
    source = small_model(folder / "damaged", checkpoint, layers, {}, "afq4")
    with pytest.raises(UnusableModel, match="'a' is stored as AFQ of 7 bits in groups of 64, which cannot be read"):
        resolve(FileRequest(str(source), from_uqff="afq4"))
    source.joinpath("afq4-0.uqff").write_bytes(safetensors({"0": uqff.u8(0)}))
    with pytest.raises(UnusableModel, match=r"Pre-1\.0 UQFF artifacts are no longer supported"):
        resolve(FileRequest(str(source), from_uqff="afq4"))
