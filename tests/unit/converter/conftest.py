"""What tests of the converter need."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def torch() -> Any:
    """The module, imported by the process that needs it: others that collect the tests would wait seconds for it."""
    import torch

    return torch
