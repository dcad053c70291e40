"""What is reused of the prompts of agents, against an oracle that knows the future."""

from __future__ import annotations

import pytest
from agent_trace import END, agent_trace, prompt_of
from prefix_oracle import most_reusable

from modelyard.engine.settings import CHECKPOINTS
from support.agent_memory import Served, reused_part

LONGEST = 8_000


@pytest.mark.parametrize("memory", [LONGEST, 32_768], ids=["for little more than the longest prompt", "for all"])
@pytest.mark.parametrize(
    ("state_bytes", "checkpoints", "window"),
    [(0, 0, 0), (30_000, 12, 0), (30_000, CHECKPOINTS, 512)],
    ids=["cells", "a state", "windows"],
)
def test_agents_reuse_what_an_oracle_with_the_same_memory_would(
    memory: int, state_bytes: int, checkpoints: int, window: int
) -> None:
    requests = agent_trace()
    served = Served(memory, state_bytes=state_bytes, checkpoints=checkpoints, window=window)
    # Beside cells there is host memory for a quarter as much.
    assert reused_part(served, requests, memory if state_bytes else memory * 5 // 4) >= 0.95
    prompts = sum(len(prompt_of(request)) for request in requests)
    answers = sum(len(request.answer.words) + 1 for request in requests)
    # The last token of an answer is never computed.
    assert served.computed == prompts + answers - len(requests) - sum(served.reused)


def test_the_oracle_keeps_what_is_needed_soonest() -> None:
    shared, first, second = [1] * 4, [2] * 3, [3] * 3
    sequences = [([*shared, *first, 8], [9]), ([*shared, *second, 8], [9]), ([*shared, *first, 8], [9])]
    assert most_reusable(sequences, 100) == [0, 4, 7]
    # Without room for both, all of the first but its end is kept, since it comes again.
    assert most_reusable(sequences, 11) == [0, 4, 6]


def test_prompts_of_a_trace_repeat_what_was_answered() -> None:
    requests = agent_trace(turns=4, agents=1, scale=0.05)
    answered = [[*prompt_of(request), *request.answer.words, END] for request in requests]
    continued = [
        any(prompt_of(later)[: len(before)] == before for before in answered[:at]) for at, later in enumerate(requests)
    ]
    assert sum(continued) >= len(requests) // 2
    assert agent_trace(turns=4, agents=1, scale=0.05) == requests


def test_short_requests_beside_agents_do_not_push_out_their_histories() -> None:
    requests = agent_trace()
    served = Served(32_768)
    reused = []
    for number, request in enumerate(requests):
        served.serve(prompt_of(request), [*request.answer.words, END])
        reused.append(served.reused[-1])
        for other in range(4):
            served.serve([20_000 + 4 * number + other] * 60, [END])
    sequences = [(prompt_of(request), [*request.answer.words, END]) for request in requests]
    assert sum(reused) >= 0.95 * sum(most_reusable(sequences, 32_768))
