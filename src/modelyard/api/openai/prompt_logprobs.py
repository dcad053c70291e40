"""Log-probabilities in the shapes of vLLM, and the choice of the best of several continuations.

Source: vLLM, ``vllm/entrypoints/openai``, ``ChatCompletionResponse.prompt_logprobs`` and
``return_tokens_as_token_ids``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from modelyard.api.openai.schema import ScoreFields
from modelyard.api.openapi.answers_openai import PromptScores, PromptToken
from modelyard.protocol.values import TokenLogprob
from modelyard.yard.requests.token_stream import TokenStream

# JSON has no infinity; OpenAI documents this value for tokens that are not likely at all.
LEAST_LOGPROB = -9999.0


def token_name(token: bytes, token_id: int, *, as_id: bool) -> str:
    """Return a token as log-probabilities name it: by its text, or by its id where that is known and asked for."""
    return f"token_id:{token_id}" if as_id and token_id >= 0 else token.decode("utf-8", "replace")


def prompt_scores(body: ScoreFields, generation: TokenStream) -> PromptScores:
    """Return the log-probabilities at each place of the prompt, if they were asked for; null for the first one."""
    if body.prompt_logprobs is None:
        return {}
    scored = generation.prompt_logprobs
    return {"prompt_logprobs": [None if math.isnan(each.logprob) else _at_its_place(each) for each in scored]}


def _at_its_place(each: TokenLogprob) -> dict[str, PromptToken]:
    likely = zip(each.top_ids, each.top, strict=True)
    entries = {
        str(token_id): _entry(token, logprob, rank) for rank, (token_id, (token, logprob)) in enumerate(likely, 1)
    }
    # Tokens that are equally likely may come in any order: the token's own entry has its own rank.
    return {**entries, str(each.id): _entry(each.token, each.logprob, each.rank)}


def _entry(token: bytes, logprob: float, rank: int) -> PromptToken:
    return {
        "logprob": max(logprob, LEAST_LOGPROB),
        "rank": rank,
        "decoded_token": token.decode("utf-8", "replace"),
    }


def mean_logprob(scored: Sequence[TokenLogprob]) -> float:
    """Return the mean log-probability of the tokens of an answer, without its echo; that of an empty answer is 0."""
    # Only tokens of prompts have a rank, or no probability.
    answer = [each.logprob for each in scored if not each.rank and not math.isnan(each.logprob)]
    return sum(answer) / len(answer) if answer else 0.0


def best_of(means: Sequence[float], prompts: int, choices: int) -> list[int]:
    """Return the indices of the best answers to each prompt, the best first.

    Args:
        means: mean log-probabilities; each prompt has as many answers in a row.
        prompts: number of prompts.
        choices: how many answers to each prompt are returned.
    """
    answers = len(means) // prompts
    return [
        index
        for first in range(0, len(means), answers)
        for index in sorted(range(first, first + answers), key=lambda index: -means[index])[:choices]
    ]
