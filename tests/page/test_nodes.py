"""The nodes of a cluster on the page of models: their memory, and where models are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from modelyard.config import validate_config
from modelyard.yard.yard import Yard
from support.chromium import IN_BROWSER, Visiting
from support.cluster_stage import cluster, over_http
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines

pytestmark = [pytest.mark.browser, *IN_BROWSER]


@pytest.fixture
def engines() -> Iterator[list[ScriptedEngines]]:
    """Engines of two nodes."""
    made = [ScriptedEngines(answer=lambda _: ["Hi"]) for _ in range(2)]
    yield made
    assert all(each.end() for each in made)


async def test_each_node_has_a_bar_and_a_model_is_loaded_and_unloaded_on_them(
    visit: Visiting, tmp_path: Path, engines: list[ScriptedEngines]
) -> None:
    write(tmp_path / "m.gguf", tiny_model())
    models = [{"model_id": "m.gguf", "alias": "m", "load": "on-demand"}]
    config = validate_config({"models": models}, source="test", base=tmp_path)
    async with (
        cluster(config, 2, lambda config, number: Yard(config, make_engine=engines[number].make_handle)) as stage,
        over_http(stage) as client,
        visit(str(client.base_url).rstrip("/"), "models") as shown,
    ):
        nodes, row = shown.page.locator(".pool"), shown.page.locator(".model-row", has_text="m")
        await expect(nodes).to_have_count(2)
        await expect(nodes.locator(".badge")).to_have_text(["up", "up"])
        await row.get_by_role("button", name="Load", exact=True).click()
        await expect(shown.page.locator(".toast")).to_contain_text("m is loaded.")
        await expect(nodes.locator(".legend", has_text="m")).to_have_count(1)
        await row.get_by_role("button", name="Unload", exact=True).click()
        await expect(row.locator(".badge").first).to_have_text("not loaded")
        await expect(nodes.locator(".segment")).to_have_count(0)
