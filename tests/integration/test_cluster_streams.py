"""Streams of a cluster whose nodes are lost: real models on nodes in this process, over TCP, without Ray."""

from __future__ import annotations

import asyncio
from pathlib import Path

from modelyard.config import Config, validate_config
from modelyard.protocol.prompts import Sampling, Text
from modelyard.yard.requests.requests import Request
from support.cluster_stage import WAIT_S, Stage, cluster

TOKENS = 32
# Continued with tokens that nothing else comes near, so that the kernels that compute them do not matter.
COUNTED = (
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,",
    "a b c d e f g a b c d e f g a b c d e f g a b c",
    "10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110,",
)
STREAMS = len(COUNTED)


def config(weights: dict[str, Path]) -> Config:
    model = {"model_id": str(weights["smollm2"]), "alias": "smol", "device": {"max_seq_len": 2048}}
    return validate_config(
        {"models": [model], "runtime": {"max_seqs": STREAMS, "isolation": "thread"}}, source="test", base=Path("/")
    )


def asked(number: int) -> Request:
    return Request(Text(COUNTED[number]), sampling=Sampling(temperature=0.0), max_tokens=TOKENS, ignore_eos=True)


async def answer(stage: Stage, request: Request, begun: asyncio.Event | None = None) -> tuple[str, int]:
    async with asyncio.timeout(WAIT_S), stage.front.generate(request) as stream:
        pieces: list[str] = []
        async for piece in stream:
            pieces.append(piece)
            if begun is not None and stream.generated >= TOKENS // 6:
                begun.set()
        return "".join(pieces), stream.outcome().usage.completion_tokens


async def test_streams_go_on_at_another_node_when_theirs_is_lost(drawn_weights: dict[str, Path]) -> None:
    async with cluster(config(drawn_weights), 2) as stage:
        undisturbed = [await answer(stage, asked(number)) for number in range(STREAMS)]
        begun = [asyncio.Event() for _ in range(STREAMS)]
        answers = [asyncio.create_task(answer(stage, asked(n), begun[n])) for n in range(STREAMS)]
        async with asyncio.timeout(WAIT_S):
            for event in begun:
                await event.wait()
        lost = max(stage.nodes, key=lambda node: node.open_requests)
        assert lost.open_requests
        await lost.close()
        disturbed = await asyncio.gather(*answers)
        assert len(stage.front_nodes.reports) == 1
    assert [tokens for _, tokens in disturbed] == [tokens for _, tokens in undisturbed]
    assert [text for text, _ in disturbed] == [text for text, _ in undisturbed]
