"""An answer that must not end yet is sampled without the tokens that end it."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelyard.engine.output.adjustments import Adjustments
from modelyard.engine.output.sampler import GreedySampler, PatientSampler

END = 0
CONTEXT: Any = None


def logits() -> Any:
    return np.array([9.0, 1.0, 5.0], np.float32)


def test_no_end_is_sampled_before_its_time() -> None:
    sampler = PatientSampler(GreedySampler(Adjustments({})), (END,), 2)
    assert [sampler.sample(CONTEXT, 0, logits()) for _ in range(3)] == [2, 2, END]


def test_a_token_that_is_sampled_again_counts_once() -> None:
    sampler = PatientSampler(GreedySampler(Adjustments({})), (END,), 1)
    row = np.array([9.0, 1.0, 1.1], np.float32)
    token = sampler.sample(CONTEXT, 0, row)
    assert not sampler.is_certain(row, token)
    assert [sampler.sample(CONTEXT, 0, logits()) for _ in range(2)] == [2, END]
