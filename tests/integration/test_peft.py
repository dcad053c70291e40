"""LoRA adapters of PEFT, converted once, and control vectors: equal to what PEFT and transformers compute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from modelyard.engine.llama import context_params
from modelyard.engine.llama.library import lib
from modelyard.formats.gguf.read import read_header
from modelyard.formats.peft import read_peft
from modelyard.hub import ConvertedModels, Stores
from modelyard.hub.preparation.convert_adapter import convert_adapter, find_converted
from modelyard.hub.sources.converter_process import run_converter
from modelyard.protocol.adapters import AdapterFile, AdapterUse
from modelyard.protocol.prompts import Tokens
from modelyard.protocol.requests import Stop
from modelyard.protocol.values import SequenceId
from support.adapters import write_drawn_model, write_vector
from support.engine_driver import engine
from support.peft_adapters import peft_logprobs, steered_logprobs, write_peft

PROMPT = (1, 260, 261, 262, 263, 260)
Q8_0 = "7"
ROUNDING = 0.1
"""Limit of how far log-probabilities differ where llama.cpp rounds activations to 8 bits, as it does for Q8_0: those of
the model alone differ by 0.04, and those with adapters by as much."""

USES: list[dict[str, float]] = [{}, {"one": 1.0}, {"two": 1.0}, {"one": 0.5, "two": 1.5}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawn_model(tmp_path_factory.mktemp("peft") / "base.gguf")


@pytest.fixture(scope="module")
def folders(base: Path) -> dict[str, Path]:
    """An adapter as most are, and one whose modules have ranks, alphas and factors of their own."""
    checkpoint = base.parent / "checkpoint"
    others = ("self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    odd = {"use_rslora": True, "rank_pattern": {"up_proj": 8}, "alpha_pattern": {"down_proj": 3, "mlp.gate_proj": 5}}
    return {
        "one": write_peft(base.parent / "one", base=checkpoint),
        "two": write_peft(base.parent / "two", base=checkpoint, targets=others, seed=1, **odd),
    }


@pytest.fixture(scope="module")
def converted(base: Path, folders: dict[str, Path]) -> dict[str, Path]:
    stores = Stores(converted=ConvertedModels(base.parent / "converted"))
    steps: list[str] = []

    def convert(folder: Path) -> Path:
        return convert_adapter(read_peft(folder), str(base), stores, lambda progress: not steps.append(progress.step))

    made = {name: convert(folder) for name, folder in folders.items()}
    assert steps
    steps.clear()
    assert {name: convert(folder) for name, folder in folders.items()} == made
    assert not steps, "a conversion is made once"
    return made


def said(base: Path, converted: dict[str, Path]) -> Iterator[dict[int, float]]:
    """For each of USES, the log-probabilities of the likeliest tokens after the prompt."""
    files = tuple(
        AdapterFile(name, path, name.encode().hex(), read_header(path).size_bytes) for name, path in converted.items()
    )
    driven = engine(base, adapters=files, context_length=64, max_seqs=1, kv_type="f32", flash_attn=False)
    for number, use in enumerate(USES):
        uses = tuple(AdapterUse(name, scale) for name, scale in use.items())
        driven.answer(Tokens(PROMPT), number=number, max_tokens=1, logprobs=20, adapters=uses)
        (first,) = driven.logprobs[SequenceId(number)]
        yield {token: logprob for token, (_, logprob) in zip(first.top_ids, first.top, strict=True)}
    driven.stopped(Stop())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize(("quantised", "tolerance"), [(False, 1e-3), (True, ROUNDING)])
def test_converted_adapters_compute_what_peft_computes(
    base: Path,
    folders: dict[str, Path],
    converted: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    *,
    quantised: bool,
    tolerance: float,
) -> None:
    # Keys, values and sums of 16 bits, as flash attention has them, alone move log-probabilities by 0.003.
    monkeypatch.setitem(context_params._KV_TYPES, "f32", lib.GGML_TYPE_F32)
    if quantised:
        whole, base = base, base.with_name("q8_0.gguf")
        run_converter("quantize", [str(whole), str(base), Q8_0], lambda _: True, lambda _: None)
    expected = peft_logprobs(base, folders, USES, PROMPT)
    for number, found in enumerate(said(base, converted)):
        assert len(found) == 20
        assert found == pytest.approx({token: expected[number][token] for token in found}, abs=tolerance)
    for number in range(1, len(USES)):
        assert expected[number] != pytest.approx(expected[0], abs=10 * tolerance), "adapters change answers"


def test_control_vectors_are_added_behind_their_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(context_params._KV_TYPES, "f32", lib.GGML_TYPE_F32)
    base = write_drawn_model(tmp_path / "deep.gguf", layers=4)
    drawn = np.random.default_rng(3)
    one, two = ({layer: drawn.normal(0, 1, 32) for layer in layers} for layers in ((1, 2, 3), (2,)))
    files = (
        AdapterFile("one", write_vector(tmp_path / "one.gguf", one), "01", 384, is_vector=True),
        AdapterFile("cut", tmp_path / "one.gguf", "02", 384, is_vector=True, layers=(2, 9)),
        AdapterFile("two", write_vector(tmp_path / "two.gguf", two), "03", 128, is_vector=True),
    )
    expected: dict[tuple[AdapterUse, ...], dict[int, np.ndarray]] = {
        (): {},
        (AdapterUse("one", 1.0),): one,
        (AdapterUse("cut", 1.0),): {2: one[2], 3: one[3]},
        (AdapterUse("one", 0.5), AdapterUse("two", -2.0)): {1: one[1] / 2, 2: one[2] / 2 - 2 * two[2], 3: one[3] / 2},
    }
    driven = engine(base, adapters=files, context_length=64, max_seqs=1, kv_type="f32", flash_attn=False)
    # Once more in the other order, so that each follows another than before.
    for number, uses in enumerate([*expected, *reversed(expected)]):
        driven.answer(Tokens(PROMPT), number=number, max_tokens=1, logprobs=20, adapters=uses)
        (first,) = driven.logprobs[SequenceId(number)]
        wanted = steered_logprobs(base, {layer: list(each) for layer, each in expected[uses].items()}, PROMPT)
        for token, (_, logprob) in zip(first.top_ids, first.top, strict=True):
            assert logprob == pytest.approx(wanted[token], abs=1e-3)
    driven.stopped(Stop())


def test_a_changed_adapter_is_converted_again(base: Path, folders: dict[str, Path], converted: dict[str, Path]) -> None:
    stores = Stores(converted=ConvertedModels(base.parent / "converted"))
    assert find_converted(read_peft(folders["one"]), str(base), stores) == converted["one"]
    write_peft(base.parent / "other", base=base.parent / "checkpoint", seed=2)
    assert find_converted(read_peft(base.parent / "other"), str(base), stores) is None


@pytest.mark.long
def test_matrices_of_transposed_weights_are_transposed_as_these_are(tmp_path: Path) -> None:
    """GPT-2 keeps its weights as inputs by outputs, which llama.cpp's converter turns, and so does PEFT the product."""
    layer, shapes = "transformer.h.0", {"attn.c_attn": (96, 32), "mlp.c_fc": (64, 32)}
    folder = write_peft(tmp_path / "gpt2", targets=tuple(shapes), shapes=shapes, layer=layer, fan_in_fan_out=True)
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 32}
    (folder / "config.json").write_text(json.dumps(config))
    path = convert_adapter(read_peft(folder), "", Stores(converted=ConvertedModels(tmp_path / "made")), lambda _: True)
    header, raw = read_header(path), path.read_bytes()
    assert header.architecture == "gpt2"
    assert {tensor.name: tensor.shape for tensor in header.tensors} == {
        "blk.0.attn_qkv.weight.lora_a": (32, 4),
        "blk.0.attn_qkv.weight.lora_b": (4, 96),
        "blk.0.ffn_up.weight.lora_a": (32, 4),
        "blk.0.ffn_up.weight.lora_b": (4, 64),
    }
    saved = load_file(folder / "adapter_model.safetensors")
    for tensor in header.tensors:
        module, which = ("attn.c_attn" if "attn" in tensor.name else "mlp.c_fc"), tensor.name[-1].upper()
        at = header.data_start + tensor.offset
        numbers = np.frombuffer(raw, "<f4", tensor.size_bytes // 4, at).reshape(tensor.shape[::-1])
        assert np.array_equal(numbers, saved[f"base_model.model.{layer}.{module}.lora_{which}.weight"])
