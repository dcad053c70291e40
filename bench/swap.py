"""How long a request waits for its model when only one of two fits into memory."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from pathlib import Path

from bench.files import story
from bench.systems import Http, llama_server_process, modelyard

# Of what one model needs: room for one, and not for two.
ROOM = 1.5


async def modelyard_swaps(folder: Path, weights: tuple[Path, Path], repetitions: int) -> list[float]:
    """Seconds to the first token of a model that has to take the other's place."""
    with modelyard(folder, weights, prompt_lookup=False) as system:
        port = system.models[0][0]
        needed = await asyncio.to_thread(_needed_bytes, port)
    with modelyard(folder, weights, prompt_lookup=False, budget=f"{int(ROOM * needed)}B") as system:
        await system.ask([story(0)], 2, 0)
        taken = []
        for number in range(repetitions):
            (said,) = await system.ask([story(number)], 2, (number + 1) % 2)
            taken.append(said.first_token_s)
        return taken


def _needed_bytes(port: int) -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/models/plan", b'{"model_id": "0"}', {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(json.load(answer)["needed_bytes"])


async def llama_server_swaps(program: Path, weights: tuple[Path, Path], repetitions: int) -> list[float]:
    """Seconds of a swap by ending one server and starting another."""
    taken = []
    for number in range(repetitions):
        began = time.perf_counter()
        with llama_server_process(program, weights[(number + 1) % 2]) as port:
            (said,) = await Http([(port, "default")]).ask([story(number)], 2)
        taken.append(said.first - began)
    return taken
