"""What / answers: a page to a browser, ``OK`` to everything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.api.server.root import root_page
from support.scripted_app import scripted_app

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def test_a_browser_gets_a_page_with_the_models_and_where_the_docs_are(tmp_path: Path) -> None:
    async with scripted_app(tmp_path, lambda _: "", ui_folder=tmp_path) as client:
        page = await client.get("/", headers=BROWSER)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert 'href="docs"' in page.text
        assert 'href="v1/models"' in page.text
        assert "<td>m</td><td>loaded</td>" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("accept", ["*/*", "", "application/json"])
async def test_programs_get_what_health_checks_and_clients_of_ollama_expect(tmp_path: Path, accept: str) -> None:
    async with scripted_app(tmp_path, lambda _: "", ui_folder=tmp_path) as client:
        answer = await client.get("/", headers={"accept": accept})
        assert (answer.status_code, answer.text, answer.headers["vary"]) == (200, "OK", "accept")
        assert (await client.head("/", headers={"accept": accept})).status_code == 200


def test_without_a_key_no_model_is_named() -> None:
    assert "<table>" not in root_page(None)
    assert "API key" in root_page(None)
