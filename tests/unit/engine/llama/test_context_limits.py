"""Sizes of a context fit one another, whatever is asked for."""

from __future__ import annotations

import pytest

from modelyard.engine.llama.context_limits import context_limits


@pytest.mark.parametrize("length", [1, 255, 256, 257, 8192])
@pytest.mark.parametrize("slots", [1, 2, 48, 256])
@pytest.mark.parametrize("step_tokens", [1, 32, 128, 512, 8192])
def test_llama_cpps_assertions_hold(length: int, slots: int, step_tokens: int) -> None:
    limits = context_limits(length, slots, step_tokens)
    # As llama.cpp derives them from what it is asked for.
    batch = min(limits.cells, limits.batch)
    assert slots <= batch, "output_reserve: n_outputs_max <= cparams.n_outputs_max"
    assert min(step_tokens, limits.cells) <= batch, "decode: n_tokens_all <= cparams.n_batch"
    assert limits.step >= step_tokens, "encode: cparams.n_ubatch >= n_tokens"
    assert limits.cells >= length


def test_fewer_tokens_than_a_step_has_may_be_computed_at_once() -> None:
    limits = context_limits(4096, 48, 512, 128)
    assert (limits.batch, limits.step) == (512, 128)


def test_a_context_is_not_larger_than_it_has_to_be() -> None:
    assert context_limits(4096, 48, 512).cells == 4096
    assert context_limits(1, 1, 512).cells == 256
