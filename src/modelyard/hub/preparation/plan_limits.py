"""Collects the warnings about the model of a plan, from its GGUF header and its checkpoint's configuration."""

from __future__ import annotations

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.header import GgufHeader
from modelyard.hub.preparation.plan import FilePlan
from modelyard.hub.select.limits import check_checkpoint, checkpoint_limits, header_limits
from modelyard.hub.sources.checkpoint_config import read_config
from modelyard.hub.sources.huggingface import Hub


def limits_of(plan: FilePlan, header: GgufHeader, hub: Hub) -> tuple[str, ...]:
    """Return warnings about the model, in sentences, without duplicates.

    ``header`` is the header of its GGUF file, or an estimate of it. The configuration is read too, because a conversion
    drops facts such as a sliding window that llama.cpp does not support for the architecture.

    Raises:
        UnusableModel: every answer of the model would be wrong, or its configuration cannot be read.
    """
    found = dict.fromkeys(header_limits(header))
    if plan.decision.form != "gguf":
        config = read_config(hub, plan.decision.listing)
        try:
            check_checkpoint(config)
        except UnusableModel as error:
            raise UnusableModel(f"'{plan.request.source}': {error}") from None
        found |= dict.fromkeys(checkpoint_limits(config))
    return tuple(found)
