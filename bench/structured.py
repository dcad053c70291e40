"""What structure costs: ``python -m bench.structured MODEL.gguf`` compares answers under a grammar with free ones.

Both are of the same length, by one engine, by turns, greedy and without guesses. The grammar lets nearly every token
pass at every step, so that the model's work is the same: what is measured is masks and nothing else. Beside it stands
the cost of a mask under a JSON schema.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from modelyard.engine.engine import Engine
from modelyard.engine.settings import EngineSettings
from modelyard.protocol.events import Event, Failed, Finished, Loaded, Stopped
from modelyard.protocol.prompts import Sampling, Text
from modelyard.protocol.requests import Stop, Submit
from modelyard.protocol.values import SequenceId

TOKENS, ROUNDS = 32, 9
PROMPT = "A long story about the sea and the people who live by it:\n"
_ITEMS = {"type": "array", "items": {"type": "string", "minLength": 10}, "minItems": 100}
DEMANDS: dict[str, dict[str, Any]] = {
    "free": {},
    "any text": {"grammar": {"type": "regex", "value": "(.|\n)*"}},
    "schema": {"response_format": {"type": "json_schema", "json_schema": {"schema": _ITEMS, "strict": True}}},
}


def main(path: Path) -> None:
    """Print the medians, and their ratios to that of free text."""
    events: SimpleQueue[Event] = SimpleQueue()

    def publish(batch: Sequence[Event]) -> None:
        for event in batch:
            events.put(event)

    def until(*kinds: type) -> None:
        while not isinstance(event := events.get(timeout=600), kinds):
            assert not isinstance(event, Failed), event.error

    settings = EngineSettings(
        "bench", (path,), "", context_length=1024, max_seqs=1, prefix_slots=1, prompt_lookup=False
    )
    engine = Engine(settings, publish, None, None)
    engine.start()
    until(Loaded)
    took: dict[str, list[float]] = {name: [] for name in DEMANDS}
    number = 0
    for round_ in range(ROUNDS + 1):
        for name, demand in DEMANDS.items():
            began = time.perf_counter()
            greedy = Sampling(temperature=0.0)
            engine.send(Submit(SequenceId(number), Text(PROMPT), greedy, max_tokens=TOKENS, ignore_eos=True, **demand))
            until(Finished)
            number += 1
            # The first reads the vocabulary, and the prompt.
            if round_:
                took[name].append(time.perf_counter() - began)
    engine.send(Stop())
    until(Stopped)
    # Of rounds, so that what else the machine does weighs on both sides.
    for name, times in took.items():
        ratio = statistics.median(each / free for each, free in zip(times, took["free"], strict=True))
        print(f"{name}: {1000 * statistics.median(times) / TOKENS:.2f} ms a token, {ratio:.3f} of free text")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
