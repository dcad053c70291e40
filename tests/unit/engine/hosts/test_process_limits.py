"""A server that was started under a limit of processor time tries models and tokenises all the same."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource
hard = {hard}
resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
{call}
print(resource.getrlimit(resource.RLIMIT_CPU)[0])
"""
TRIAL = "from modelyard.engine.hosts.trial_task import TrialLimits; TrialLimits(20.0, 80.0, 1 << 40).apply()"
TOKENIZER = "from modelyard.engine.input.tokenizer_program import _limit_time; _limit_time(20.0)"


def soft_limit(call: str, hard: int) -> int:
    program = PROGRAM.format(hard=hard, call=call)
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)


def test_a_trial_takes_no_more_than_the_server_may() -> None:
    assert soft_limit(TRIAL, 7) == 7
    assert soft_limit(TRIAL, 1000) == 20


def test_a_tokenizer_takes_no_more_than_the_server_may() -> None:
    assert soft_limit(TOKENIZER, 7) == 7
    assert 20 <= soft_limit(TOKENIZER, 1000) <= 30
