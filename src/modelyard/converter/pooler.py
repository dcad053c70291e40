"""Keeps the layer between a BERT and its ranking head, which llama.cpp's converter drops.

BertForSequenceClassification scores tanh(W x + b), where x is the vector of the first token and W, b are its "pooler".
llama.cpp computes that before the head, from the tensors that it calls "cls".
Source: transformers, models/bert/modeling_bert.py, BertPooler; llama.cpp, src/llama-graph.cpp, build_pooling.
"""

from __future__ import annotations

from typing import Any, Final

_POOLER: Final = "pooler.dense."
_KEPT: Final = "classifier.dense."


def with_pooler(model_class: Any) -> Any:
    """Return the converter's class ``model_class``, changed to keep the pooler."""

    class Pooled(model_class):  # type: ignore[misc]
        model_arch = model_class.model_arch

        @classmethod
        def filter_tensors(cls, item: tuple[str, Any]) -> tuple[str, Any] | None:
            name, load = item
            if name.removeprefix("bert.").startswith(_POOLER):
                return _KEPT + name.rpartition(".")[2], load
            kept: tuple[str, Any] | None = super().filter_tensors(item)
            return kept

    return Pooled
