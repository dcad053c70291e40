"""What every answer says about itself."""

from __future__ import annotations

from modelyard.api.middleware.answer_headers import private_headers


def test_answers_are_not_kept_sniffed_or_embedded() -> None:
    assert dict(private_headers([(b"content-type", b"application/json")])) == {
        b"x-content-type-options": b"nosniff",
        b"cache-control": b"no-store",
        b"cross-origin-resource-policy": b"same-origin",
    }


def test_what_is_the_same_for_everybody_may_be_kept() -> None:
    assert b"cache-control" not in dict(private_headers([(b"cache-control", b"public, max-age=86400")]))


def test_what_another_origin_may_read_it_may_embed() -> None:
    added = dict(private_headers([(b"access-control-allow-origin", b"https://chat.example")]))
    assert added[b"cross-origin-resource-policy"] == b"cross-origin"
    assert added[b"cache-control"] == b"no-store"
