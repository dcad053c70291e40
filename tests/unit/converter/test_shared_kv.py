"""Layers of Gemma 3n without keys and values of their own are written with those of another layer."""

from __future__ import annotations

from typing import Any

from modelyard.converter.shared_kv import missing_tensors, with_unused_layers


def names(layer: int, *parts: str) -> list[str]:
    return [f"model.layers.{layer}.self_attn.{part}.weight" for part in parts]


OWN = [*names(0, "q_proj", "k_proj", "v_proj", "k_norm"), *names(1, "q_proj", "k_proj", "v_proj", "k_norm")]


def test_missing_keys_and_values_are_copies_of_those_of_the_last_layer_that_has_them() -> None:
    copies = missing_tensors([*OWN, *names(2, "q_proj"), *names(3, "q_proj")], layers=4, shared=2)
    wanted = names(1, "k_proj", "v_proj", "k_norm")
    assert copies == dict(zip([*names(2, "k_proj", "v_proj", "k_norm")], wanted, strict=True)) | dict(
        zip(names(3, "k_proj", "v_proj", "k_norm"), wanted, strict=True)
    )


def test_published_weights_of_unused_layers_stay() -> None:
    published = [*OWN, *names(2, "q_proj", "k_proj", "v_proj", "k_norm")]
    assert missing_tensors(published, layers=3, shared=1) == {}


def test_nothing_is_missing_where_no_layer_shares() -> None:
    assert missing_tensors(OWN, layers=2, shared=0) == {}


class Model:
    """The constructor of a class of llama.cpp's converter."""

    model_arch = "gemma3n"

    def __init__(self, hparams: dict[str, Any]) -> None:
        self.hparams, self.block_count = hparams, 3
        self.model_tensors = {name: object() for name in OWN}


def test_the_converter_reads_a_missing_tensor_from_the_layer_that_has_it() -> None:
    model = with_unused_layers(Model)({"num_kv_shared_layers": 1})
    for part in ("k_proj", "v_proj", "k_norm"):
        [missing], [source] = names(2, part), names(1, part)
        assert model.model_tensors[missing] is model.model_tensors[source]
    assert with_unused_layers(Model)({}).model_tensors.keys() == set(OWN)
