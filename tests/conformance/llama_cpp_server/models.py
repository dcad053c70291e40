"""The models that stand in for those that the tests of llama.cpp's server fetch from a hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import tiny_vision
from demo_weights import prepare

from support.gguf_writer import (
    STR,
    U32,
    VOCABULARY,
    Tensor,
    gguf,
    model_pairs,
    model_tensors,
    tiny_encoder_parts,
    write,
)
from support.gguf_writer import array as gguf_array

ROOT: Final = Path(__file__).parents[3]

# Templates by their names in llama.cpp -> the turns of a conversation, in Jinja.
TEMPLATES: Final = {
    "llama3": "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n",
    "chatml": "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n",
    "command-r": "{% for message in messages %}<|START_OF_TURN_TOKEN|><|{{ {'assistant': 'CHATBOT'}.get(message.role, "
    "message.role | upper) }}_TOKEN|>{{ message.content }}"
    "<|END_OF_TURN_TOKEN|>{% endfor %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
}


class TestModels:
    """Files of models, made where they are needed.

    Args:
        folder: where they are written.
    """

    # It is no test, although its name begins like one.
    __test__ = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path_of(self, process: Any) -> Path:
        """Return the file, or the folder, of the model that ``process`` asks for."""
        name = f"{process.model_hf_repo} {process.model_hf_file} {process.model_alias}"
        if process.server_reranking or "rerank" in name:
            return self._made("ranker.gguf", _ranker)
        if process.server_embeddings or "bert" in name:
            from support.minilm import converted

            return converted(ROOT / ".weights" / "converted")
        if "infill" in name:
            return self._made("infill.gguf", _infill)
        # Of random weights, with SmolLM2's tokenizer: what it writes means nothing, and takes no time.
        sees, blind = self._folder / "vision", self._folder / "text" / "tiny.gguf"
        if not sees.exists():
            model, _ = tiny_vision.make(prepare(ROOT / ".weights")["smollm2"], sees)
            blind.parent.mkdir()
            shutil.copy(model, blind)
            shutil.copy(model, self.draft)
        return sees if "tinygemma3" in name else blind

    @property
    def draft(self) -> Path:
        """The file of a model that drafts for the one without a projector, once that is made."""
        return self._folder / "text" / "draft.gguf"

    def template(self, template: str) -> Path:
        """Return a file with a chat template: one of llama.cpp's names, or Jinja source."""
        source = TEMPLATES.get(template, template)
        path = self._folder / f"template-{abs(hash(source))}.jinja"
        path.write_text(source)
        return path

    def _made(self, name: str, make: Any) -> Path:
        path = self._folder / name
        if not path.exists():
            write(path, make())
        return path


def _infill() -> bytes:
    """A model with tokens for gaps, of no weights."""
    vocabulary = [*VOCABULARY, "<PRE>", "<SUF>", "<MID>"]
    pairs = model_pairs(vocabulary=vocabulary) | {"llama.context_length": (U32, 2048)}
    for number, key in enumerate(("fim_pre", "fim_suf", "fim_mid")):
        pairs[f"tokenizer.ggml.{key}_token_id"] = (U32, len(VOCABULARY) + number)
    return gguf(pairs, model_tensors(len(vocabulary)))


def _ranker() -> bytes:
    """A reranker for inputs of up to 512 tokens, of no weights: all its scores are equal."""
    pairs, tensors = tiny_encoder_parts()
    longer = [Tensor(each.name, (32, 512)) if each.name == "position_embd.weight" else each for each in tensors]
    pairs |= {"bert.context_length": (U32, 512), "bert.classifier.output_labels": gguf_array(STR, ["label 0"])}
    return gguf(pairs, [*longer, Tensor("cls.output.weight", (32, 1))])
