"""Engines on threads beside engines in processes, on the same work, in turn: what a process of its own costs.

python -m bench.hosts [--repetitions N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import time
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.files import ROOT, story, weights
from bench.systems import Http, modelyard

HOSTS = ("thread", "process")
TOKENS = 96
MODELS = 4


def four_models(folder: Path) -> list[Path]:
    """Models that share nothing."""
    first, second = weights(folder)
    others = [folder / f"{name}-q4_0.gguf" for name in ("third", "fourth")]
    for other in others:
        if not other.exists():
            shutil.copy(first, other)
    return [first, second, *others]


async def first_token(system: Http, number: int) -> float:
    """Milliseconds to the first token of a short prompt."""
    (answer,) = await system.ask([story(number)], 2)
    return 1000 * answer.first_token_s


async def one_stream(system: Http, number: int) -> float:
    """Tokens a second of one stream."""
    (answer,) = await system.ask([story(number)], TOKENS)
    return answer.tokens_per_s


async def eight_streams(system: Http, number: int) -> float:
    """Tokens a second of eight streams of one model, together."""
    return await _together(system, {0: 8}, number)


async def two_models(system: Http, number: int) -> float:
    """Tokens a second of two streams of each of two models, together."""
    return await _together(system, {0: 2, 1: 2}, number)


async def four_models_at_once(system: Http, number: int) -> float:
    """Tokens a second of one stream of each of four models, together."""
    return await _together(system, dict.fromkeys(range(MODELS), 1), number)


async def _together(system: Http, streams: dict[int, int], number: int) -> float:
    began = time.perf_counter()
    asked = [
        system.ask([story(8 * number + at) for at in range(count)], TOKENS, model) for model, count in streams.items()
    ]
    await asyncio.gather(*asked)
    return sum(streams.values()) * TOKENS / (time.perf_counter() - began)


async def load(system: Http, number: int) -> float:
    """Milliseconds to the first token of a model that is not loaded."""
    return await _after_unload(system, number, "drain")


async def wake(system: Http, number: int) -> float:
    """Milliseconds to the first token of a model whose weights are parked."""
    return await _after_unload(system, number, "park")


async def swap_under_streams(system: Http, number: int) -> float:
    """Milliseconds in which a stream is suspended, its model unloaded and loaded again, until it goes on."""
    port, model = system.models[0]
    stream = asyncio.create_task(_gaps(system, number))
    await asyncio.sleep(0.5)
    await asyncio.to_thread(_post, port, "/v1/models/unload", {"model_id": model, "mode": "suspend"})
    await asyncio.to_thread(_post, port, "/v1/models/reload", {"model_id": model})
    began, ended = await stream
    return 1000 * (ended - began)


async def _gaps(system: Http, number: int) -> tuple[float, float]:
    (answer,) = await system.ask([story(number)], 2 * TOKENS)
    return answer.first, answer.last


async def _after_unload(system: Http, number: int, mode: str) -> float:
    port, model = system.models[0]
    await asyncio.to_thread(_post, port, "/v1/models/unload", {"model_id": model, "mode": mode})
    return await first_token(system, number)


def _post(port: int, path: str, body: dict[str, str]) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


WORK: dict[str, Callable[[Http, int], Awaitable[float]]] = {
    "first token, ms": first_token,
    "one stream, tokens/s": one_stream,
    "eight streams, tokens/s": eight_streams,
    "two models, tokens/s": two_models,
    "four models, tokens/s": four_models_at_once,
    "load, ms": load,
    "wake, ms": wake,
    "answer with a swap in it, ms": swap_under_streams,
}


def memory_mb(pid: int) -> float:
    """Proportional set size of a process and all that it has started, in MB."""
    total = 0.0
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8")
        children = " ".join(path.read_text("utf-8") for path in Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:
        return 0.0
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            total += int(line.split()[1]) / 1000
    return total + sum(memory_mb(int(child)) for child in children.split())


async def measure(repetitions: int) -> dict[str, dict[str, list[float]]]:
    """Each work on each host, in turn."""
    folder = ROOT / ".bench"
    files = four_models(folder)
    measured: dict[str, dict[str, list[float]]] = {name: {host: [] for host in HOSTS} for name in WORK}
    measured |= {f"memory of {count} models, MB": {host: [] for host in HOSTS} for count in (2, MODELS)}
    for count in (2, MODELS):
        for host in HOSTS:
            with modelyard(folder, files[:count], prompt_lookup=False, isolation=host) as system:
                await asyncio.gather(*(system.ask([story(0)], 8, model) for model in range(count)))
                measured[f"memory of {count} models, MB"][host].append(memory_mb(system.pid))
    with ExitStack() as stack:
        systems = {
            host: stack.enter_context(modelyard(folder, files, prompt_lookup=False, isolation=host)) for host in HOSTS
        }
        for system in systems.values():
            await asyncio.gather(*(system.ask([story(0)], 8, model) for model in range(MODELS)))
        for repetition in range(repetitions):
            for name, work in WORK.items():
                order = HOSTS if repetition % 2 else HOSTS[::-1]
                for host in order:
                    number = 1000 * (1 + list(WORK).index(name)) + repetition
                    measured[name][host].append(await work(systems[host], number))
    return measured


def main() -> None:
    """Measure, and show medians."""
    parser = argparse.ArgumentParser(prog="python -m bench.hosts", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    measured = asyncio.run(measure(parser.parse_args().repetitions))
    table = Table("", *HOSTS, "process / thread")
    for name, by_host in measured.items():
        medians = [statistics.median(by_host[host]) for host in HOSTS]
        table.add_row(name, *(f"{median:.1f}" for median in medians), f"{medians[1] / medians[0]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
