"""How many examples hypothesis draws: a few in ``make test``, all of them in ``make conformance``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pytest
from hypothesis import settings

# Set by `make conformance`, which runs the tests that are marked `thorough` beside those that are `long`.
IS_THOROUGH: Final = os.environ.get("MODELYARD_TESTS") == "thorough"
_PART: Final = 5

Test = TypeVar("Test", bound=Callable[..., Any])


def thorough(examples: int, **options: Any) -> Callable[[Test], Test]:
    """Settings of hypothesis for a test whose examples cost much: a fifth of them, unless all are asked for.

    Args:
        examples: all of them.
        options: other settings.
    """
    drawn = settings(max_examples=examples if IS_THOROUGH else examples // _PART, deadline=None, **options)

    def mark(test: Test) -> Test:
        marked: Test = pytest.mark.thorough(drawn(test))
        return marked

    return mark
