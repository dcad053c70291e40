"""Play requests that schemathesis makes up from the API's description, without keys and with one.

    python -m attacks.descriptions [--seconds SECONDS]

Ends with 1 where an answer was a fault, was not as described, or did not come in time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from demo_weights import prepare

from conftest import two_models
from modelyard.config import validate_config
from support.fuzzing import MODELS, OF_TOKENS, Fuzzed, fuzz, narrowed
from support.scripted_engines import ScriptedEngines
from support.server import RunningServer, serving

ROOT: Final = Path(__file__).resolve().parents[2]
KEY: Final = "sk-3f9c5f2ab7f34a6c8d1e"
LIMITED_KEY: Final = "sk-81d2e6a0c4be9f17aa02"
KEYS: Final[dict[str, Any]] = {
    "api_keys": [KEY],
    "keys": [{"name": "limited", "key": LIMITED_KEY, "models": ["smollm2"], "max_concurrent": 2, "max_tokens": 100}],
}
# Who asks -> the settings of the server, and the headers of requests.
ROUNDS: Final[Mapping[str, tuple[dict[str, Any], dict[str, str]]]] = {
    "without keys": ({}, {}),
    "with a key for everything": (KEYS, {"authorization": f"Bearer {KEY}"}),
    "with a limited key": (KEYS, {"authorization": f"Bearer {LIMITED_KEY}"}),
    "without the key that is needed": (KEYS, {}),
}


def play(name: str, weights: dict[str, Path], seed: int) -> Fuzzed:
    """One round of requests to a server of its own."""
    settings, headers = ROUNDS[name]
    models = two_models(weights).model_dump(mode="json", exclude_unset=True)
    engines = ScriptedEngines(answer=lambda _: ["Hello", " world"])
    with serving(validate_config({**models, "server": settings}, source="attack"), engines.make_handle) as server:
        return fuzz(server, _described(server), examples=3, seed=seed, headers=headers)


def _described(server: RunningServer) -> dict[str, Any]:
    return narrowed(server.get("/openapi.json").json(), MODELS, without=OF_TOKENS)


def main() -> int:
    """Play rounds until the time is over; 1 where something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m attacks.descriptions", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0)
    ends = time.monotonic() + parser.parse_args().seconds
    weights = prepare(ROOT / ".weights")
    requests: Counter[str] = Counter()
    failures: set[str] = set()
    seed = 0
    while time.monotonic() < ends:
        seed += 1
        for name in ROUNDS:
            fuzzed = play(name, weights, seed)
            requests[name] += fuzzed.requests
            print(f"{name}, seed {seed}: {fuzzed.requests} requests, {dict(fuzzed.statuses)}", flush=True)
            for failure in set(fuzzed.failures) - failures:
                print(f"  {failure[:1500]}", flush=True)
            failures |= set(fuzzed.failures)
    print(f"{requests.total()} requests in {seed} rounds, {len(failures)} of them wrong.")
    return min(len(failures), 1)


if __name__ == "__main__":
    sys.exit(main())
