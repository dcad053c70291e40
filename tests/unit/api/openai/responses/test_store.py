"""Stored responses: their owners, and which ones are dropped when the store is full."""

from __future__ import annotations

from typing import Any

from modelyard.api.openai.responses.store import ResponseStore

A, B = b"a" * 32, b"b" * 32


def response(name: str, size: int = 0) -> dict[str, Any]:
    return {"id": name, "output": "x" * size}


def keep(store: ResponseStore, owner: bytes | None, names: list[str], size: int = 0) -> None:
    for name in names:
        store.keep(response(name, size), [], [], owner)


def kept(store: ResponseStore, names: list[str]) -> list[str]:
    return [name for name in names if store.find(name) is not None]


def test_responses_of_one_key_do_not_push_out_those_of_another() -> None:
    store = ResponseStore(max_responses=10)
    few, many = ["a1", "a2"], [f"b{n}" for n in range(50)]
    keep(store, A, few)
    keep(store, B, many)
    assert kept(store, few) == few
    assert kept(store, many) == many[-8:]


def test_who_comes_late_has_an_equal_share() -> None:
    store = ResponseStore(max_responses=10)
    early, late = [f"a{n}" for n in range(10)], [f"b{n}" for n in range(10)]
    keep(store, A, early)
    keep(store, B, late)
    assert (kept(store, early), kept(store, late)) == (early[-5:], late[-5:])


def test_bytes_are_shared_as_well() -> None:
    store = ResponseStore(max_bytes=10_000)
    keep(store, A, ["a"], 500)
    large = [f"b{n}" for n in range(5)]
    keep(store, B, large, 4000)
    assert kept(store, ["a"]) == ["a"]
    assert kept(store, large) == large[-2:]


def test_one_that_is_larger_than_the_rest_makes_room_for_them() -> None:
    store = ResponseStore(max_bytes=10_000)
    keep(store, A, ["a"], 500)
    keep(store, B, ["b"], 50_000)
    assert kept(store, ["a", "b"]) == ["a"]


def test_what_a_response_was_made_from_counts_as_its_body_did() -> None:
    store = ResponseStore(max_bytes=10_000)
    for name in ("a", "b"):
        store.keep(response(name), [], [], A, 6_000)
    assert kept(store, ["a", "b"]) == ["b"]


def test_without_keys_the_oldest_go() -> None:
    store = ResponseStore(max_responses=3)
    names = [f"r{n}" for n in range(5)]
    keep(store, None, names)
    assert kept(store, names) == names[-3:]
