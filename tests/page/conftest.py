"""One Chromium for all tests of the page, and the servers that they visit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from checked_server import ROOT, Server, serving

from modelyard.api.ui.files import UI_FOLDER, read_files
from support.chromium import IS_REQUIRED, Visiting, chromium_path, started, visiting

if TYPE_CHECKING:
    from playwright.async_api import Browser

# The budget holds one of the models with its context, so that they take turns.
DEMO = """
command = "serve"
default_model_id = "smollm2"
[server]
record_texts = true
keep_responses = "memory"
[memory]
budget = "700MB"
[[models]]
model_id = "{smollm2}"
alias = "smollm2"
[models.sampling]
temperature = 0
[[models]]
model_id = "{gemma3}"
alias = "gemma3"
load = "on-demand"
chat_template = "{template}"
"""


# It comes with the other packages of the tests; without it, make browser fails when it imports the tests.
collect_ignore_glob = [] if IS_REQUIRED or find_spec("playwright") else ["test_*.py"]


def demo_text(weights: dict[str, Path]) -> str:
    """Return the configuration of a server with both demo models, of which one fits the memory."""
    return DEMO.format(**weights, template=ROOT / "examples" / "gemma.jinja")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """Chromium, where the page is built."""
    path = chromium_path()
    if not read_files(UI_FOLDER):
        pytest.skip("The page is not built. `make ui` builds it")
    async with started(path) as browser:
        yield browser


@pytest.fixture(scope="session")
def visit(chromium: Browser) -> Visiting:
    """Opens the page of a server; see ``support.chromium.visiting``."""
    return partial(visiting, chromium)


@pytest.fixture(scope="session")
def demo(chromium: Browser, weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server in a process of its own, as ``modelyard serve`` starts it."""
    with serving(tmp_path_factory.mktemp("demo"), demo_text(weights)) as server:
        yield server
