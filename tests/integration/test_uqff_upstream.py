"""A UQFF of unquantised weights becomes the file that its checkpoint becomes, where llama.cpp's converter is mended.

All are converted in one process: it is torch and transformers that take their time to start.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_file import GgufFile
from safetensors.numpy import save_file

from architectures.making import filled
from architectures.table import ARCHITECTURES
from modelyard.hub.sources.llama_converter import child_environment
from support.converting import WAIT_S
from support.uqff import make_uqff, unquant

pytestmark = pytest.mark.timeout(WAIT_S + 60)

# As in architectures/shapes.py.
WIDTH, HIDDEN, EXPERT_HIDDEN, EXPERTS = 128, 256, 64, 8
VOCABULARY = 49152
LAYERS = 2
Shapes = dict[str, tuple[int, ...]]

NOTICE = "The checkpoint lacks the weights of its prediction head (MTP). The head is left out."


def norms(place: str) -> Shapes:
    return {f"{place}.{name}_layernorm": (WIDTH,) for name in ("input", "post_attention")}


def feed_forward(place: str, hidden: int = HIDDEN) -> Shapes:
    widened = {f"{place}.{name}_proj": (hidden, WIDTH) for name in ("gate", "up")}
    return widened | {f"{place}.down_proj": (WIDTH, hidden)}


def attention(place: str, queries: int, keys: int, values: int) -> Shapes:
    rows = {"q": queries, "k": keys, "v": keys}
    projected = {f"{place}.{name}_proj": (count, WIDTH) for name, count in rows.items()}
    return projected | {f"{place}.o_proj": (WIDTH, values)}


def ministral(layer: int) -> Shapes:
    place = f"model.layers.{layer}"
    return norms(place) | feed_forward(f"{place}.mlp") | attention(f"{place}.self_attn", 128, 64, 128)


def qwen(layer: int) -> Shapes:
    place = f"model.layers.{layer}"
    shapes = norms(place) | feed_forward(f"{place}.mlp")
    if layer % 2:
        sizes = {f"{place}.self_attn.{name}_norm": (64,) for name in "qk"}
        return shapes | sizes | attention(f"{place}.self_attn", 512, 128, 256)
    rows = {"in_proj_a": 4, "in_proj_b": 4, "in_proj_qkv": 256, "in_proj_z": 128}
    linear = f"{place}.linear_attn"
    shapes |= {f"{linear}.{name}": (count, WIDTH) for name, count in rows.items()}
    shapes |= {f"{linear}.A_log": (4,), f"{linear}.dt_bias": (4,), f"{linear}.norm": (32,)}
    return shapes | {f"{linear}.conv1d": (256, 1, 4), f"{linear}.out_proj": (WIDTH, 128)}


def qwen_head() -> Shapes:
    """The matrices of a prediction head, which are all in the layers of a UQFF."""
    place = "mtp.layers.0"
    matrices = feed_forward(f"{place}.mlp") | attention(f"{place}.self_attn", 512, 128, 256)
    return {"mtp.fc": (WIDTH, 2 * WIDTH)} | matrices


def deepseek(layer: int) -> Shapes:
    place = f"model.layers.{layer}"
    attends = {
        "kv_a_layernorm": (64,),
        "kv_a_proj_with_mqa": (80, WIDTH),
        "kv_b_proj": (256, 64),
        "o_proj": (WIDTH, 128),
        "q_a_layernorm": (64,),
        "q_a_proj": (64, WIDTH),
        "q_b_proj": (192, 64),
    }
    shapes = norms(place) | {f"{place}.self_attn.{name}": shape for name, shape in attends.items()}
    if layer == 0:
        return shapes | feed_forward(f"{place}.mlp")
    shapes |= {f"{place}.mlp.gate": (EXPERTS, WIDTH), f"{place}.mlp.gate.e_score_correction_bias": (EXPERTS,)}
    for expert in ("shared_experts", *(f"experts.{number}" for number in range(EXPERTS))):
        shapes |= feed_forward(f"{place}.mlp.{expert}", EXPERT_HIDDEN)
    return shapes


def deepseek_head() -> Shapes:
    """A layer behind the last one, of which llama.cpp's converter takes nothing."""
    place = f"model.layers.{LAYERS}"
    return deepseek(LAYERS) | {f"{place}.eh_proj": (WIDTH, 2 * WIDTH), f"{place}.enorm": (WIDTH,)}


def layers(of: Callable[[int], Shapes]) -> Shapes:
    return {name: shape for layer in range(LAYERS) for name, shape in of(layer).items()}


@dataclass(frozen=True)
class Case:
    """A checkpoint: an entry of the table of architectures, cut down to two layers.

    Attributes:
        shapes: of its layers and its head, by the names of its tensors without ".weight".
        keys: that the file must have, with their values.
        tensors: that the file must have, among others.
        more: settings of the checkpoint beside those of the table.
        lacks_head: whether a head is declared that is not there.
        like: the case whose checkpoint becomes the same file; "" for its own.
    """

    architecture: str
    model_type: str
    shapes: Shapes
    keys: Mapping[str, Any]
    tensors: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    lacks_head: bool = False
    like: str = ""


QWEN_TYPES = {"layer_types": ["linear_attention", "full_attention"]}
CASES = {
    # The converter's class for it hands everything on to another one.
    "ministral3": Case("ministral3", "ministral3", layers(ministral), {"mistral3.attention.temperature_scale": 0.1}),
    # The architecture has a head, which the checkpoint lacks.
    "qwen3.5-headless": Case(
        "qwen3.5-headless",
        "qwen3_5_text",
        layers(qwen),
        {"qwen35.block_count": LAYERS},
        more=QWEN_TYPES,
        lacks_head=True,
    ),
    "qwen3.5": Case(
        "qwen3.5",
        "qwen3_5_text",
        layers(qwen) | qwen_head(),
        {"qwen35.block_count": LAYERS + 1, "qwen35.nextn_predict_layers": 1},
        ("blk.2.nextn.eh_proj.weight", "blk.2.ffn_up.weight"),
        {**QWEN_TYPES, "mtp_num_hidden_layers": 1},
    ),
    # As transformers saves it: how experts are chosen is not said, and a head is declared in any case.
    "deepseek-v3": Case(
        "deepseek-v3-saved",
        "deepseek_v3",
        layers(deepseek),
        {"deepseek2.expert_gating_func": 2, "deepseek2.block_count": LAYERS},
        ("blk.1.exp_probs_b.bias", "blk.1.attn_k_b.weight"),
        lacks_head=True,
    ),
    # The converter leaves the head out.
    "deepseek-v3 with a head": Case(
        "deepseek-v3-saved",
        "deepseek_v3",
        layers(deepseek) | deepseek_head(),
        {"deepseek2.expert_gating_func": 2, "deepseek2.block_count": LAYERS},
        like="deepseek-v3",
    ),
}


@cache
def embeddings(seed: int) -> np.ndarray:
    return weights_of(np.random.default_rng(seed), (VOCABULARY, WIDTH))


def weights_of(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.normal(0, 0.05, shape).astype(np.float16)


def make_checkpoint(folder: Path, case: Case, like: Path) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(5)
    weights = {name: weights_of(random, shape) for name, shape in {"model.norm": (WIDTH,), **case.shapes}.items()}
    weights |= {"model.embed_tokens": embeddings(1), "lm_head": embeddings(2)}
    stored = {name if name.endswith(("A_log", "_bias")) else f"{name}.weight": one for name, one in weights.items()}
    save_file(stored, folder / "model.safetensors")
    architecture = ARCHITECTURES[case.architecture]
    facts = {"architectures": [architecture.model], "model_type": case.model_type, "dtype": "float16"}
    settings = filled(architecture.settings, VOCABULARY) | {"vocab_size": VOCABULARY, "num_hidden_layers": LAYERS}
    (folder / "config.json").write_text(json.dumps(facts | settings | dict(case.more)))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(like / name, folder / name)
    return folder


CONVERT = """
import sys
from pathlib import Path
from conversion.base import TextModel
from modelyard.converter import checkpoint
from modelyard.converter.uqff import main as uqff
read, kept = TextModel.get_vocab_base, []
def read_once(model):
    # All have the same vocabulary, which takes a second to read.
    if not kept:
        kept.append(read(model))
    return kept[0]
TextModel.get_vocab_base = read_once
for folder in map(Path, sys.argv[1:]):
    if (folder / "checkpoint").is_dir():
        print(f"{folder}: the checkpoint", flush=True)
        checkpoint.main([f"{folder}/checkpoint", f"{folder}/plain.gguf", "--name", "x", "--type", "f16"])
    print(f"{folder}: the UQFF", flush=True)
    uqff.main([f"{folder}/uqff", f"{folder}/uqff.gguf", "--name", "x", "all-0.uqff"])
"""


@dataclass(frozen=True)
class Converted:
    """The file of the UQFF, and what was said while it was made."""

    folder: Path
    said: str


@pytest.fixture(scope="module")
def converted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Converted]:
    home = tmp_path_factory.mktemp("upstream")
    folders = {name: home / str(number) for number, name in enumerate(CASES)}
    for name, case in CASES.items():
        whole = make_checkpoint(folders[name] / "checkpoint", case, checkpoint)
        uqff = make_uqff(whole, folders[name] / "uqff", unquant, stem="all", shards=1)
        # What converters look for, as when the files of a model are gathered.
        (uqff / "residual.safetensors").rename(uqff / "model.safetensors")
        if case.like:
            shutil.rmtree(whole)
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, *map(str, folders.values())],
        env={**child_environment(), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    said = {name: done.stdout.partition(f"{folder}: the UQFF")[2] for name, folder in folders.items()}
    return {name: Converted(folder, said[name].partition(f"{home}")[0]) for name, folder in folders.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_uqff_becomes_the_file_that_its_checkpoint_becomes(converted: Mapping[str, Converted], name: str) -> None:
    case = CASES[name]
    paths = converted[case.like or name].folder / "plain.gguf", converted[name].folder / "uqff.gguf"
    plain, uqff = map(GgufFile, paths)
    said = {key: field.value for key, field in uqff.fields.items()}
    assert said == {key: field.value for key, field in plain.fields.items()}
    expected, tensors = ({tensor.name: tensor for tensor in file.tensors} for file in (plain, uqff))
    assert tensors.keys() == expected.keys()
    for key, tensor in tensors.items():
        assert tensor.tensor_type == expected[key].tensor_type, key
        assert np.array_equal(tensor.data, expected[key].data), key
    assert {key: said.get(key) for key in case.keys} == pytest.approx(dict(case.keys))
    assert set(case.tensors) <= tensors.keys()
    assert (NOTICE in converted[name].said) is case.lacks_head
