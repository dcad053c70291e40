"""A process is held to its processor time, also where the server itself was started under a limit."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, ({hard}, {hard}))
from modelyard.system.bounded.processor_time import limit_processor_time
limit_processor_time(20.0)
print(resource.getrlimit(resource.RLIMIT_CPU)[0])
"""


@pytest.mark.parametrize(("hard", "soft"), [(7, range(7, 8)), (1000, range(20, 31))])
def test_the_limit_is_no_higher_than_the_servers(hard: int, soft: range) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(hard=hard)], capture_output=True, check=True)
    assert int(done.stdout) in soft
