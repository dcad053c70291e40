"""The ``repr`` of models."""

from __future__ import annotations

from modelyard.config import default_model
from modelyard.yard.yard import Yard


def described(name: str, yard: Yard | None) -> str:
    """Return the ``repr`` of a model: the ids and states of the models of ``yard``; None: it was closed."""
    if yard is None:
        return f"<{name}: closed>"
    default = default_model(yard.config)
    try:
        models = [(each.id, str(each.status)) for each in yard.models()]
    except RuntimeError:
        models = [(each.id, "not started") for each in yard.config.models]
    listed = (f"{model} ({status}{', default' if model == default else ''})" for model, status in models)
    return f"<{name}: {', '.join(listed)}>"
