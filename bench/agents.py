"""Coding agents on one model: how much of their prompts is computed, on Modelyard and on llama.cpp's server.

    python -m bench.agents [--agents N]

The trace is that of ``scripts/agent_trace.py``: a system prompt and tools of 3,000 tokens that all conversations share,
turns with results of tools, side conversations, sub-agents and a compaction. It is sent to a transformer and to a
hybrid model. Both systems have the same cells, and as much host memory beside them. The results are in
``results/agents.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.markdown import Markdown

from bench.files import ROOT, hybrid, weights
from bench.native import native_server
from bench.systems import CONTEXT, Http, free_port, llama_server_options, modelyard, server_process

sys.path.insert(0, str(ROOT / "scripts"))

from agent_trace import END, agent_trace, prompt_of
from prefix_oracle import most_reusable

NAME = "agents"
FOLDER, RESULTS = ROOT / ".bench", ROOT / "bench" / "results"
OURS, THEIRS = "Modelyard", "llama.cpp's server"
ANSWER_TOKENS = 16
TIMEOUT_S = 600.0

# SmolLM2's tokens: the one that ends a turn, and the first of those that stand for the words of a trace.
_IM_END, _FIRST_WORD = 2, 1_000

# Host memory beside the cells, as a part of theirs, as Modelyard has it (``PARKED_PART`` in ``engine/settings.py``).
_HOST_PART = 4


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one request.

    Attributes:
        computed: tokens of its prompt that were computed.
        first_token_s: from the request to the first token.
    """

    computed: int
    first_token_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trace.

    Attributes:
        answers: in the order of the requests.
        took_s: from the first request to the last token.
    """

    answers: list[Answered]
    took_s: float

    @property
    def computed(self) -> int:
        """Tokens of all prompts that were computed."""
        return sum(answer.computed for answer in self.answers)

    def first_token_s(self, part: float) -> float:
        """Return the time to the first token that this part of the requests has at the most."""
        times = sorted(answer.first_token_s for answer in self.answers)
        return times[min(len(times) - 1, int(part * len(times)))]


def prompts_of(agents: int) -> list[list[int]]:
    """Return the prompts of a trace as tokens, in the order of the requests."""
    requests = agent_trace(agents=agents)
    return [[_IM_END if token == END else _FIRST_WORD + token for token in prompt_of(each)] for each in requests]


def reusable(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens of the prompts an oracle with the same memory reuses."""
    return sum(most_reusable([(prompt, ()) for prompt in prompts], CONTEXT + CONTEXT // _HOST_PART))


def replay(system: Http, prompts: Sequence[Sequence[int]]) -> Outcome:
    """Ask one prompt after the other.

    Raises:
        RuntimeError: a request is refused.
    """
    ((port, name),) = system.models
    # Loaded once, so that no first time is measured.
    _ask(port, name, [_IM_END])
    began = time.perf_counter()
    answers = [_ask(port, name, prompt) for prompt in prompts]
    return Outcome(answers, time.perf_counter() - began)


def _ask(port: int, name: str, prompt: Sequence[int]) -> Answered:
    body = {
        "model": name,
        "prompt": list(prompt),
        "n_predict": ANSWER_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": True,
        "stream": True,
    }
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    began = time.perf_counter()
    try:
        connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {response.read()[-300:].decode(errors='replace')}")
        first = 0.0
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if event.get("stop"):
                return Answered(event["timings"]["prompt_n"], (first or time.perf_counter()) - began)
            # Text may be held back until its characters are whole, but tokens are counted.
            first = first or time.perf_counter()
        raise RuntimeError("the stream ended without its last event")
    finally:
        connection.close()


@contextmanager
def _llama_server(program: Path, path: Path, host_bytes: int) -> Iterator[Http]:
    """llama.cpp's server on a model, with as much host memory for prompts beside the cells."""
    port = free_port()
    host = ["--cache-ram", str(max(1, host_bytes // 2**20))]
    with server_process([str(program), "-m", str(path), *llama_server_options(port, CONTEXT), *host], port):
        yield Http([(port, "default")])


def table(outcomes: dict[str, dict[str, Outcome]], prompts: Sequence[Sequence[int]]) -> str:
    """Markdown."""
    total, possible = sum(map(len, prompts)), reusable(prompts)
    lines = [
        "| model | | tokens computed | reused, of the oracle's | first token p50, s | p90, s | the trace, s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model, systems in outcomes.items():
        lines += [
            f"| {model} | {name} | {one.computed:,} | {(total - one.computed) / possible:.3f} | "
            f"{median(answer.first_token_s for answer in one.answers):.2f} | {one.first_token_s(0.9):.2f} | "
            f"{one.took_s:.1f} |"
            for name, one in systems.items()
        ]
        lines.append(f"| {model} | an oracle | {total - possible:,} | 1 | | | |")
    return "\n".join(lines) + "\n"


def run(console: Console, agents: int = 1) -> None:
    """Measure both systems on both models, and write the results.

    Raises:
        RuntimeError, UnusableModel: llama.cpp's server cannot be built.
    """
    program = native_server(FOLDER, console)
    prompts = prompts_of(agents)
    # Bytes of the cells: layers with attention, keys and values, their width, two bytes a number.
    models = {
        "SmolLM2-135M, Q4_0": (weights(FOLDER)[0], CONTEXT * 30 * 2 * 192 * 2),
        "a hybrid of 100 M random parameters": (hybrid(FOLDER), CONTEXT * 1 * 2 * 256 * 2),
    }
    outcomes: dict[str, dict[str, Outcome]] = {}
    for model, (path, cell_bytes) in models.items():
        systems = {
            OURS: modelyard(FOLDER, [path], prompt_lookup=False),
            THEIRS: _llama_server(program, path, cell_bytes // _HOST_PART),
        }
        for name, starting in systems.items():
            with console.status(f"{model}: {name}"), starting as system:
                outcomes.setdefault(model, {})[name] = replay(system, prompts)
    written = table(outcomes, prompts)
    console.print(Markdown(written))
    RESULTS.mkdir(parents=True, exist_ok=True)
    today = datetime.now(tz=UTC).date().isoformat()
    head = (
        f"Measured on {today}: {len(prompts)} prompts with {sum(map(len, prompts)):,} tokens, the longest with "
        f"{max(map(len, prompts)):,}, in {CONTEXT:,} cells, with answers of {ANSWER_TOKENS} tokens.\n\n"
    )
    (RESULTS / "agents.md").write_text(head + written)
    console.print(f"Written to {RESULTS.relative_to(ROOT)}/agents.md")


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench.agents", description=__doc__)
    parser.add_argument("--agents", type=int, default=1, help="that take turns")
    run(Console(), parser.parse_args().agents)
    return 0


if __name__ == "__main__":
    sys.exit(main())
