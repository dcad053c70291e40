"""Reads PEFT's LoRA adapters, which are folders with ``adapter_config.json`` and ``adapter_model.safetensors``.

What cannot become an adapter of llama.cpp, or would compute something else there, is refused.
Source: peft 0.21, src/peft/tuners/lora/config.py (the keys), tuners/lora/layer.py (what is computed), and
utils/save_and_load.py (the names of tensors).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from modelyard.errors import UnusableModel
from modelyard.formats.safetensors import StoredTensor, read_safetensors

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"

_MAX_CONFIG_BYTES: Final = 2**24
_FLOATS: Final = ("F32", "F16", "BF16")
_OUTPUT_BYTES: Final = 4

# Matrices of a module, and of an embedding.
_MATRIX: Final = re.compile(r"(?P<module>.+)\.lora_(?:embedding_(?P<flat>[AB])|(?P<which>[AB])\.weight)")
# A copy of the weights that the adapter is for, which PEFT saves beside the matrices of an embedding.
_COPY: Final = ".base_layer.weight"

# Keys of the configuration for variants that compute something else than B A, scaled.
_VARIANTS: Final[Mapping[str, str]] = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "kasa_config": "KaSA",
    "alora_invocation_tokens": "an activated LoRA (aLoRA)",
    "arrow_config": "Arrow",
    "layer_replication": "layers that are replicated",
    "target_parameters": "parameters that are no module (target_parameters)",
    "trainable_token_indices": "trained tokens (trainable_token_indices)",
}
# Initialisations that change the weights of the base model.
_CHANGES_BASE: Final = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, slots=True)
class PeftAdapter:
    """A LoRA adapter of PEFT, checked as far as it can be without its base model.

    Attributes:
        folder: the folder of its files.
        base: repository or path of the model that it was trained on; "" if it is not given.
        revision: of that repository; "" for the default.
        modules: the matrices A and B by the name of their module. A has the shape [rank, inputs] and B [outputs, rank].
    """

    folder: Path
    base: str
    revision: str
    modules: Mapping[str, tuple[StoredTensor, StoredTensor]]

    @property
    def config(self) -> Path:
        """The file of its configuration."""
        return self.folder / CONFIG

    @property
    def weights(self) -> Path:
        """The file of its matrices."""
        return self.folder / WEIGHTS

    @property
    def size_bytes(self) -> int:
        """Size of the matrices after the conversion, which makes 32-bit floats of them."""
        return _OUTPUT_BYTES * sum(a.elements + b.elements for a, b in self.modules.values())

    @property
    def width(self) -> int:
        """Rows of the largest matrix that they are added to."""
        return max(b.shape[0] for _, b in self.modules.values())


def read_peft(folder: Path) -> PeftAdapter:
    """Read and check a LoRA adapter of PEFT, without the contents of its matrices.

    Raises:
        UnusableModel: a file is missing or damaged, or the adapter is of a kind that llama.cpp does not compute.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            pickled = " PyTorch's adapter_model.bin is not read: save it as safetensors." if name == WEIGHTS else ""
            raise UnusableModel(
                f"{folder}: This folder is no adapter of PEFT: it has no {name}.{pickled} Name a folder with {CONFIG} "
                f"and {WEIGHTS}, or a GGUF file."
            )
    config = _read_config(folder / CONFIG)
    _check_config(folder / CONFIG, config)
    return PeftAdapter(
        folder,
        _text(config, "base_model_name_or_path"),
        _text(config, "revision"),
        _modules(folder / WEIGHTS, read_safetensors(folder / WEIGHTS)),
    )


def scalings(adapter: PeftAdapter) -> tuple[float, dict[str, float]]:
    """Return ``lora_alpha``, and the factor of each module's product by the name of the module.

    The factor is ``alpha / rank``, or ``alpha / sqrt(rank)`` with ``use_rslora``; ``alpha_pattern`` gives modules an
    alpha of their own. Source: peft, tuners/lora/layer.py, update_layer; utils/other.py, get_pattern_key.

    Raises:
        UnusableModel: the configuration cannot be read.
    """
    config = _read_config(adapter.config)
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    factors = {}
    for module, (a, _) in adapter.modules.items():
        alpha = next(
            (own for pattern, own in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)),
            config["lora_alpha"],
        )
        factors[module] = alpha / (math.sqrt(a.shape[0]) if config.get("use_rslora") else a.shape[0])
    return float(config["lora_alpha"]), factors


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UnusableModel(f"{path}: It cannot be read: {error.strerror}. Check the path.") from error
    if len(text) > _MAX_CONFIG_BYTES:
        _refuse(path, f"It is larger than {_MAX_CONFIG_BYTES >> 20} MiB, and so no configuration of an adapter")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"It is not JSON ({error}). Save the adapter again")
    if not isinstance(config, dict):
        _refuse(path, "It is not a JSON object. Save the adapter again")
    return config


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        _refuse(path, f"'peft_type' is {kind!r}, but only LoRA adapters ('LORA') can be served")
    for key, what in _VARIANTS.items():
        if config.get(key):
            _refuse(path, f"The adapter has {what}, which llama.cpp does not compute. Merge it into its model")
    if config.get("modules_to_save"):
        _refuse(
            path,
            f"The adapter replaces whole modules ('modules_to_save': {_shown(config['modules_to_save'])}), which "
            "llama.cpp cannot do beside the base model. Merge it into its model",
        )
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        _refuse(path, "The adapter has biases, which llama.cpp does not add. Merge it into its model")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        _refuse(
            path,
            f"The adapter began with {start!r}, which changes the weights of its base model. Save it with "
            "path_initial_model_for_weight_conversion, or merge it into its model",
        )
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        _refuse(path, "'alpha_pattern' is not an object. Save the adapter again")
    for name, value in (("lora_alpha", config.get("lora_alpha")), *patterns.items()):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            _refuse(path, f"The alpha {name!r} is {_shown(value)}, but must be a number")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            _refuse(path, f"The pattern {pattern!r} in 'alpha_pattern' is no regular expression ({error})")
    if not config["lora_alpha"]:
        _refuse(path, "'lora_alpha' is 0, so that the adapter adds nothing")


def _modules(path: Path, tensors: Mapping[str, StoredTensor]) -> dict[str, tuple[StoredTensor, StoredTensor]]:
    found: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in tensors.items():
        match = _MATRIX.fullmatch(name)
        if match is None:
            if name.endswith(_COPY):
                continue
            _refuse(path, f"'{name}' is no matrix of LoRA, and llama.cpp cannot apply it. Merge it into its model")
        if len(tensor.shape) != 2 or not tensor.elements:
            _refuse(path, f"'{name}' has the shape {list(tensor.shape)}, but must be a matrix. Merge it into its model")
        if tensor.dtype not in _FLOATS:
            _refuse(path, f"'{name}' has the type {tensor.dtype}; save the adapter as {', '.join(_FLOATS)}")
        found.setdefault(match["module"], {})[match["flat"] or match["which"]] = tensor
    if not found:
        _refuse(path, "The adapter has no matrices. Save it again")
    modules = {}
    for module, pair in found.items():
        if len(pair) < 2:
            _refuse(path, f"The adapter has only one of the two matrices for '{module}'. Save it again")
        a, b = pair["A"], pair["B"]
        if a.shape[0] != b.shape[1]:
            _refuse(
                path,
                f"The matrices for '{module}' have the shapes {list(a.shape)} and {list(b.shape)}, whose ranks differ. "
                "Save the adapter again",
            )
        modules[module] = (a, b)
    return modules


def _text(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key)
    return value if isinstance(value, str) else ""


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _refuse(path: Path, problem: str) -> NoReturn:
    raise UnusableModel(f"{path}: {problem}.")
