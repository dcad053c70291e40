"""The limits of the model of a plan, from its checkpoint's configuration where it has one, and from its GGUF header."""

from __future__ import annotations

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.header import GgufHeader
from modelyard.hub.preparation.plan import FilePlan
from modelyard.hub.select.limits import check_checkpoint, checkpoint_limits, header_limits
from modelyard.hub.sources.checkpoint_config import read_config
from modelyard.hub.sources.huggingface import Hub


def limits_of(plan: FilePlan, header: GgufHeader, hub: Hub) -> tuple[str, ...]:
    """What is to be known of the model, in sentences, each once.

    ``header`` is that of its GGUF file, or what is foreseen of it. A conversion drops some facts of a checkpoint, such
    as a window that llama.cpp does not know for the architecture.

    Raises:
        UnusableModel: its answers would be wrong altogether; or its configuration cannot be read.
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
