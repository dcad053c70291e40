"""What a front may ask a node to do, by name:

    unload(model, mode)   reload(model)   prepare(model)   plan(model)
    adapters(model, adapters)   facts(model)   metrics()

Arguments and answers are plain values, which any connection carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from modelyard.api.server.metrics import node_families
from modelyard.config import Adapter
from modelyard.errors import InvalidRequest
from modelyard.yard.adapters import set_adapters
from modelyard.yard.residency.waiting import UnloadMode
from modelyard.yard.stats.cluster_status import MODEL_FACTS
from modelyard.yard.stats.status import Eviction, Plan, PoolPlan
from modelyard.yard.yard import Yard


async def run_task(yard: Yard, what: str, args: Sequence[Any]) -> Any:
    """Do what a front asks for, and return the answer.

    Raises:
        InvalidRequest: a node cannot do that.
        ModelyardError: as the yard raises it.
    """
    match what, *args:
        case ["unload", str(model), str(mode)]:
            await yard.unload(model, UnloadMode(mode))
        case ["reload", str(model)]:
            await yard.reload(model)
        case ["prepare", str(model)]:
            await yard.prepare(model)
        case ["plan", str(model)]:
            return asdict(await yard.plan(model))
        case ["facts", str(model)]:
            status = yard.model(model)
            return {name: getattr(status, name) for name in MODEL_FACTS}
        case ["metrics"]:
            return node_families(yard)
        case ["adapters", str(model), tuple(adapters)]:
            await set_adapters(yard, model, tuple(map(Adapter.model_validate_json, adapters)))
        case _:
            raise InvalidRequest(f"A node cannot {what} a model.")
    return None


def plan_of(fields: dict[str, Any], node: str) -> Plan:
    """Return the plan of what a node answers to "plan"."""
    evicts = tuple(Eviction(**each) for each in fields["evicts"])
    devices = {name: PoolPlan(**each) for name, each in fields["devices"].items()}
    return Plan(**{**fields, "evicts": evicts, "devices": devices, "node": node})


def adapter_fields(adapter: Adapter) -> str:
    """Return an adapter as the task "adapters" takes it: its table as JSON. Its file is one of the node."""
    return adapter.model_dump_json(exclude_unset=True)
