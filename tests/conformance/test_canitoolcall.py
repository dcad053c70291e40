"""The fixtures of canitoolcall: answers of nine model families, and what a correct server tells of them."""

from __future__ import annotations

import pytest
from canitoolcall.fixtures import Fixture, load_fixtures
from canitoolcall.pytest_plugin import family_for
from canitoolcall.results import Status

from conformance.canitoolcall_adapter import status_of

# The fixtures that are told otherwise, on purpose.
OTHERWISE = {
    "gpt-oss/llamacpp-builtin-python-recipient": (
        "Drops a message to the recipient python if the request has no such tool. It is told as a call here, as calls "
        "of unknown tools are in all formats, so that the client may answer that there is none."
    ),
    "gpt-oss/harmony-marker-in-reasoning": (
        "Has control tokens within the words of reasoning, which only token ids tell from text. An engine writes these "
        "as text only where they are control tokens."
    ),
    "llama/l4-truncated-missing-close-bracket": (
        "Accepts no call of an answer that was cut off within the second one. What is whole is told here, as in the "
        "package's own fixtures of other families that are cut off in the same place."
    ),
}
FIXTURES = load_fixtures()


@pytest.mark.long
@pytest.mark.parametrize("fixture", [each for each in FIXTURES if each.id not in OTHERWISE], ids=lambda each: each.id)
def test_an_answer_is_told_as_the_fixture_says(fixture: Fixture) -> None:
    status, failed = status_of(fixture, family_for(fixture))
    assert status in (Status.PASS, Status.SOFT_PASS), failed


@pytest.mark.long
def test_what_is_told_otherwise_is_among_the_fixtures() -> None:
    assert OTHERWISE.keys() <= {each.id for each in FIXTURES}
