"""Converts a LoRA adapter of PEFT to GGUF.

    python -m modelyard.converter.adapter FOLDER OUT.gguf --base FOLDER --name NAME

FOLDER has the adapter, and the folder of ``--base`` ``config.json`` of the model that it was trained on: llama.cpp's
converter renames the matrices, and permutes their rows as those of the weights. Its own program for adapters takes
``lora_alpha / rank`` for the factor of all products. Here each matrix B is scaled by what peft has beside that factor
(``use_rslora``, ``alpha_pattern``), and the matrices of transposed weights (``fan_in_fan_out``) are transposed.
Source: llama.cpp, convert_lora_to_gguf.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from modelyard.converter.gguf_write import write
from modelyard.converter.protocol import Refused, run
from modelyard.converter.settings import with_fixed_settings
from modelyard.converter.upstream import class_of, explained
from modelyard.errors import UnusableModel
from modelyard.formats.peft import PeftAdapter, read_peft, scalings
from modelyard.system.reporting_process import report

_PREFIX = "base_model.model."
_EMBEDDING = "token_embd.weight"


def main(arguments: list[str]) -> None:
    """Convert the adapter that the command line names.

    Raises:
        Refused: the converter does not support its base model, or cannot apply its matrices to it.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--name", required=True)
    options = parser.parse_args(arguments)
    report(step="reading the adapter", fraction=0.0)
    try:
        adapter = read_peft(options.folder)
        alpha, factors = scalings(adapter)
    except UnusableModel as unusable:
        raise Refused(str(unusable)) from unusable
    _convert(adapter, alpha, factors, options.base, options.out, options.name)


def _convert(
    adapter: PeftAdapter, alpha: float, factors: Mapping[str, float], base: Path, out: Path, name: str
) -> None:
    import gguf
    import torch
    from conversion import ModelBase

    torch.set_num_threads(1)
    hparams = ModelBase.load_hparams(base, False)
    # How the weights of the base model are stored is of no concern for what is added to them.
    hparams.pop("quantization_config", None)
    architecture, model_class = class_of(hparams, is_projector=False)
    is_transposed = bool(json.loads(adapter.config.read_bytes()).get("fan_in_fan_out"))
    with torch.inference_mode(), explained(architecture):
        products = _products(adapter, alpha, factors, is_transposed=is_transposed)
        model = _adapter_class(model_class, products, alpha)(
            base,
            gguf.LlamaFileType.ALL_F32,
            out,
            hparams=with_fixed_settings(hparams, architecture),
            model_name=name,
            eager=True,
        )
        model.prepare_tensors()
        model.prepare_metadata(vocab_only=False)
        write(model.gguf_writer, out)


def _products(
    adapter: PeftAdapter, alpha: float, factors: Mapping[str, float], *, is_transposed: bool
) -> Mapping[str, Any]:
    """Return what is added to each weight, by the name of the weight in the checkpoint of the base model.

    llama.cpp multiplies a product by ``alpha / rank``, and B has what is left of its factor.
    """
    import torch
    from convert_lora_to_gguf import LoraTorchTensor
    from safetensors import safe_open

    products = {}
    with safe_open(adapter.weights, "pt") as tensors:
        for module, stored in adapter.modules.items():
            a, b = (tensors.get_tensor(each.name).to(torch.float32) for each in stored)
            if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
                raise Refused(
                    f"{adapter.weights}: The matrices for '{module}' have numbers that are infinite or no numbers. "
                    "Train the adapter again."
                )
            left = factors[module] * a.shape[0] / alpha
            product = LoraTorchTensor(a, b if left == 1.0 else b * left)
            is_embedding = ".lora_embedding_" in stored[0].name
            weight = f"{module.removeprefix(_PREFIX)}.weight"
            products[weight] = product.permute(1, 0) if is_transposed and not is_embedding else product
    return products


def _adapter_class(model_class: Any, products: Mapping[str, Any], alpha: float) -> Any:
    """Return the converter's class for the base model, changed to write the products in place of its weights."""
    import gguf

    class AdapterModel(model_class):  # type: ignore[misc]
        model_arch = model_class.model_arch

        def set_vocab(self) -> None:
            """Adapters have no vocabulary."""

        def set_type(self) -> None:
            self.gguf_writer.add_type(gguf.GGUFType.ADAPTER)
            self.gguf_writer.add_string(gguf.Keys.Adapter.TYPE, "lora")

        def set_gguf_parameters(self) -> None:
            self.gguf_writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)

        def generate_extra_tensors(self) -> Iterable[tuple[str, Any]]:
            return ()

        def get_tensors(self) -> Iterator[tuple[str, Any]]:
            for name, product in products.items():
                kept = self.filter_tensors((name, lambda product=product: product))
                if kept is None:
                    raise Refused(
                        f"The adapter changes '{name}', which llama.cpp does not have in this model: it is no part of "
                        "the language model. Merge the adapter into the model."
                    )
                yield kept[0], product

        def modify_tensors(self, data_torch: Any, name: str, bid: int | None) -> Iterable[tuple[str, Any]]:
            try:
                converted = list(super().modify_tensors(data_torch, name, bid))
            except ValueError as unknown:
                raise Refused(
                    f"The adapter changes '{name}', which the converter does not find in its base model: {unknown}. "
                    "Name the model that the adapter was trained on, or merge the adapter into the model."
                ) from unknown
            except (AttributeError, NotImplementedError, TypeError) as unknown:
                raise Refused(
                    f"llama.cpp's converter cannot change the matrices for '{name}' as it changes the weights. Merge "
                    "the adapter into the model."
                ) from unknown
            if not converted and name == "lm_head.weight":
                raise Refused(
                    "The adapter changes 'lm_head', whose weights are those of the embedding in this model. llama.cpp "
                    "cannot apply that; merge the adapter into the model."
                )
            for new_name, product in converted:
                a, b = product.get_lora_A_B()
                # llama.cpp reads rows of A for an embedding.
                yield f"{new_name}.lora_a", a.T.contiguous() if new_name == _EMBEDDING else a
                yield f"{new_name}.lora_b", b

    return AdapterModel


if __name__ == "__main__":
    sys.exit(run(main))
