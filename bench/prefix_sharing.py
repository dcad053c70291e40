"""What a stranger learns from the prefix cache, and what it costs that he learns nothing.

python -m bench.prefix_sharing MODEL.gguf

The oracle: where prefixes are shared by all, key B has the first token of what key A has sent as fast as if it had sent
it itself, and reads ``cached_tokens``. The cost: two keys with one long system prompt compute it once each.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue

from modelyard.engine.engine import Engine
from modelyard.engine.settings import EngineSettings
from modelyard.protocol.events import Event, Failed, Finished, Loaded, Started, Stopped, Token
from modelyard.protocol.prompts import Sampling, Text
from modelyard.protocol.requests import Stop, Submit
from modelyard.protocol.values import SequenceId

ROUNDS, REQUESTS, TOKENS = 3, 4, 16
SALTS = {"all": ("", ""), "key": ("a" * 32, "b" * 32)}
SYSTEM = "You answer questions about the sea, the wind and the people who live by them. " * 12


class Bench:
    """One engine, asked from one thread."""

    def __init__(self, path: Path) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._number = 0
        settings = EngineSettings(
            "bench", (path,), "", context_length=4096, max_seqs=2, prefix_slots=8, prompt_lookup=False
        )
        self._engine = Engine(settings, self._publish, None, None)
        self._engine.start()
        while not isinstance(self._next(), Loaded):
            pass

    def send(self, text: str, salt: str, tokens: int) -> None:
        """Begin a request."""
        self._number += 1
        greedy = Sampling(temperature=0.0)
        self._engine.send(
            Submit(SequenceId(self._number), Text(text), greedy, max_tokens=tokens, ignore_eos=True, cache_salt=salt)
        )

    def first_token(self, text: str, salt: str) -> tuple[float, int]:
        """Milliseconds to the first token of a request, and its ``cached_tokens``."""
        began, cached, took = time.perf_counter(), 0, 0.0
        self.send(text, salt, 1)
        while not isinstance(event := self._next(), Finished):
            match event:
                case Started(_, cached_tokens):
                    cached = cached_tokens
                case Token() if not took:
                    took = 1000 * (time.perf_counter() - began)
        return took, cached

    def ended(self, number: int) -> int:
        """Wait until so many requests are over; the tokens of their prompts that had to be computed."""
        computed = 0
        while number:
            if isinstance(event := self._next(), Finished):
                computed += event.usage.prompt_tokens - event.usage.cached_tokens
                number -= 1
        return computed

    def stop(self) -> None:
        """End the engine."""
        self._engine.send(Stop())
        while not isinstance(self._next(), Stopped):
            pass
        self._engine.join(60.0)

    def _publish(self, batch: Sequence[Event]) -> None:
        for event in batch:
            self._events.put(event)

    def _next(self) -> Event:
        event = self._events.get(timeout=600)
        assert not isinstance(event, Failed), event.error
        return event


def oracle(bench: Bench, salts: tuple[str, str], round_: str) -> tuple[float, float, int]:
    """Milliseconds to the first token of a prompt that nobody sent, of B for one that A sent, and B's cached_tokens."""
    prompts = [f"{name} {round_}. {SYSTEM}" for name in ("Nobody's", "A's")]
    bench.first_token(prompts[1], salts[0])
    unknown, _ = bench.first_token(prompts[0], salts[1])
    known, cached = bench.first_token(prompts[1], salts[1])
    return unknown, known, cached


def together(bench: Bench, salts: tuple[str, str], round_: str) -> tuple[float, int]:
    """Tokens a second of two keys that ask at the same time, several times, with one system prompt.

    And the tokens of their prompts that were computed.
    """
    began, computed = time.perf_counter(), 0
    for turn in range(REQUESTS):
        for who, salt in enumerate(salts):
            bench.send(f"{round_}. {SYSTEM}\nQuestion {turn} of {who}:", salt, TOKENS)
        computed += bench.ended(len(salts))
    return len(salts) * REQUESTS * TOKENS / (time.perf_counter() - began), computed


def main(path: Path) -> None:
    """Print medians of both ways to share, each on an engine of its own."""
    for sharing, salts in SALTS.items():
        bench = Bench(path)
        seen = [oracle(bench, salts, f"{sharing} {round_}") for round_ in range(ROUNDS)]
        rates = [together(bench, salts, f"{sharing} {round_}") for round_ in range(ROUNDS)]
        bench.stop()
        unknown, known, cached = (statistics.median(values) for values in zip(*seen, strict=True))
        rate, computed = (statistics.median(values) for values in zip(*rates, strict=True))
        print(
            f'share_prefixes = "{sharing}": first token of a prompt that nobody sent {unknown:.1f} ms, of one that the '
            f"other key sent {known:.1f} ms with cached_tokens = {cached:.0f}; two keys with one system prompt "
            f"{rate:.1f} tokens/s, {computed:.0f} tokens of prompts computed",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
