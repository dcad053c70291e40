"""The addresses of models, and the pages of their list."""

from __future__ import annotations

from typing import Any, cast

import pytest

from modelyard.api.mcp.resources import PAGE_MODELS, name_in, page_of, uri_of
from modelyard.errors import InvalidRequest


@pytest.mark.parametrize("model", ["smol", "org/name:Q4_K_M", "a b%2Fc?d#e", "模型", "x" * 512])
def test_an_address_names_its_model(model: str) -> None:
    uri = uri_of(model)
    assert uri.isascii()
    assert uri.startswith("modelyard://models/")
    assert name_in(uri) == model


@pytest.mark.parametrize(
    "uri", ["", "modelyard://models/", "file:///etc/passwd", "modelyard://model/a", "modelyard://models/" + "a" * 4096]
)
def test_other_addresses_name_none(uri: str) -> None:
    assert name_in(uri) is None


def test_the_pages_of_a_list_have_every_model_once() -> None:
    models = cast(Any, list(range(2 * PAGE_MODELS + 1)))
    seen, cursor, pages = [], None, 0
    while True:
        page, cursor = page_of(models, cursor)
        seen += page
        pages += 1
        if cursor is None:
            break
    assert seen == models
    assert pages == 3


@pytest.mark.parametrize("cursor", ["-1", "x", "1" * 10, "1.5"])
def test_other_cursors_are_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="nextCursor"):
        page_of([], cursor)
