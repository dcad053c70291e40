"""GET /v1/doctor: what ``modelyard doctor`` finds, of the machine that a server runs on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from modelyard.api.middleware.authorization import needs
from modelyard.api.services import Services
from modelyard.config import Config
from modelyard.doctor.checks import Facts, check_facts, is_usable
from modelyard.doctor.collect import collect_facts
from modelyard.doctor.finding import Finding
from modelyard.yard.yard import Yard

KEPT_S: Final = 30.0
"""How long findings count as present: to collect them loads llama.cpp in another process, and asks the hub."""

_BEFORE_A_START: Final = frozenset({"port"})
"""Checks that a running server fails by running."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found.

    Attributes:
        as_of: when, in seconds of the epoch.
        ends_at: until when it counts as present, on the clock of ``time.monotonic``.
        findings: the outcomes of all checks.
    """

    as_of: float
    ends_at: float
    findings: tuple[Finding, ...]


class ServerDoctor:
    """Examines the machine of a running server, once at a time. Use it on one event loop.

    Args:
        collect: returns the facts about the machine and a configuration. Blocks, for seconds.
    """

    def __init__(self, collect: Callable[[Config], Facts] = collect_facts) -> None:
        self._collect = collect
        self._examining: asyncio.Task[Examination] | None = None

    async def examine(self, yard: Yard) -> Examination:
        """Return what is found, or what was found less than ``KEPT_S`` ago. Calls at the same time share it."""
        task = self._examining
        if task is None or (task.done() and _is_over(task)):
            task = self._examining = asyncio.create_task(self._examine(yard))
        # A client that leaves does not end it for others.
        return await asyncio.shield(task)

    async def _examine(self, yard: Yard) -> Examination:
        facts = await asyncio.to_thread(self._collect, yard.config)
        # What models have taken is there for models.
        available = min(facts.total_bytes, facts.available_bytes + yard.monitor.metrics().used_bytes)
        found = check_facts(replace(facts, available_bytes=available))
        kept = tuple(finding for finding in found if finding.name not in _BEFORE_A_START)
        return Examination(time.time(), time.monotonic() + KEPT_S, kept)


def _is_over(task: asyncio.Task[Examination]) -> bool:
    """Whether a task that has ended has failed, or found what is not present any more."""
    return task.cancelled() or task.exception() is not None or time.monotonic() >= task.result().ends_at


router = APIRouter()


@router.get("/v1/doctor")
@needs("admin", all_models=True)
async def examine_server(http: HttpRequest) -> dict[str, Any]:
    """Devices, memory, versions, caches and settings of the server with advice, as `modelyard doctor` has them.

    It takes some seconds, and asks the hub whether it can be reached. What was found is kept for 30 seconds.
    """
    doctor: ServerDoctor = http.app.state.doctor
    found = await doctor.examine(Services.of(http).yard)
    return {
        "object": "doctor",
        "as_of": round(found.as_of, 3),
        "usable": is_usable(list(found.findings)),
        "findings": [asdict(finding) for finding in found.findings],
    }
