"""The choices of a streamed answer as they arrive, side by side, as the fields of chunks.

Hot path: ``chunk_fields`` yields once a chunk, whose text is everything that has arrived since the last chunk.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing
from typing import Any, Protocol

from modelyard.api.openai.chunks import Identity
from modelyard.api.openai.message import logprobs_object
from modelyard.api.openai.schema import ChatCompletionRequest
from modelyard.api.openai.timings import take_progress, timings_object
from modelyard.api.openai.usage import total_usage, usage_object
from modelyard.inprocess.side_by_side import side_by_side
from modelyard.protocol.events import Finished
from modelyard.yard.requests.requests import Request
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.yard import Yard

Accepting = Callable[[Awaitable[None]], Awaitable[None]]
"""Waits until an answer begins, and may show meanwhile how its model loads."""


class ChoiceWriter(Protocol):
    """Turns the text of one generation into parts of its choice, in OpenAI's shape."""

    def opening(self) -> Iterator[Mapping[str, Any]]:
        """Yield the parts before the text."""

    def pieces(self, text: str) -> Iterator[Mapping[str, Any]]:
        """Yield the parts that ``text`` completes."""

    def closing(self, finished: Finished) -> Iterator[Mapping[str, Any]]:
        """Yield the parts of text that was held back, and the last part, which has the finish reason."""


async def chunk_fields(
    yard: Yard,
    requests: Sequence[Request],
    identity: Identity,
    make_writer: Callable[[TokenStream, int], ChoiceWriter],
    accepting: Accepting,
    *,
    choices: int,
    timings_per_token: bool,
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the fields of each chunk; closing the generator cancels the generation.

    Args:
        yard: computes the answers.
        requests: one for each choice of each prompt.
        identity: of the answer.
        make_writer: makes the writer of a generation and its index.
        accepting: waits until the answers begin.
        choices: how many choices each prompt has.
        timings_per_token: whether every chunk has timings, not only the last one of a choice.

    Raises:
        ModelyardError: as ``Yard.generate``, also in the middle of the answer.
    """
    await yard.checks.check_task(requests[0].model, "text")
    with ExitStack() as submitted:
        generations = [submitted.enter_context(yard.submit(request)) for request in requests]
        await accepting(_accepted(generations))
        common = identity.of(generations[0])
        writers = [make_writer(generation, index) for index, generation in enumerate(generations)]
        for writer in writers:
            for choice in writer.opening():
                yield {**common, "choices": [choice]}
        finished: dict[int, Finished] = {}
        async with aclosing(side_by_side(generations, _next)) as texts:
            async for index, text in texts:
                if progress := take_progress(generations[index]):
                    choice = {"index": index, "text": "", "delta": {}}
                    yield {**common, "choices": [choice], "prompt_progress": progress}
                if text is not None:
                    for choice in writers[index].pieces(text) if text else ():
                        fields: dict[str, Any] = {**common, "choices": [choice]}
                        if timings_per_token:
                            fields["timings"] = timings_object(generations[index])
                        yield fields
                    continue
                finished[index] = generations[index].outcome()
                *others, last = writers[index].closing(finished[index])
                for choice in others:
                    yield {**common, "choices": [choice]}
                fields = {**common, "choices": [last], "timings": timings_object(generations[index])}
                if len(finished) == len(generations):
                    in_order = [finished[number] for number in sorted(finished)]
                    fields["usage"] = usage_object(total_usage(in_order, choices))
                yield fields


async def _accepted(generations: Sequence[TokenStream]) -> None:
    for generation in generations:
        await generation.accepted()


async def _next(generation: TokenStream) -> str | None:
    """Return the text that has arrived, "" where there is news of the prompt alone; None at the end."""
    taken: list[str] = []

    def take_news() -> bool:
        if text := generation.take_text():
            taken.append(text)
        return bool(taken) or generation.computed is not None or generation.is_over

    await generation.drive(take_news)
    return "".join(taken) if taken or not generation.is_over else None


def take_logprobs(body: ChatCompletionRequest, generation: TokenStream) -> Mapping[str, Any] | None:
    """Return the log-probabilities of the tokens since the last call; None: there are none, or none were asked for."""
    if not body.logprobs or not generation.logprobs:
        return None
    logprobs, generation.logprobs = generation.logprobs, []
    return logprobs_object(logprobs, as_ids=bool(body.return_tokens_as_token_ids))
