"""A sample of `make faults`: inputs that end llama.cpp, on a server that has other models to serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.files import SAMPLE
from faults.trying import Outcome, try_files, try_schemas, try_texts

pytestmark = pytest.mark.timeout(400)

# `make faults` tries all inputs beside streams without a pause.
REST_S = 0.5


def right(outcomes: list[Outcome]) -> bool:
    """Whether nothing is wrong; else the assertion shows what."""
    wrong = [f"{outcome.name}: {outcome.status} {outcome.said[:300]} {outcome.problems}" for outcome in outcomes]
    assert not any(outcome.problems for outcome in outcomes), "\n".join(wrong)
    return bool(outcomes)


def test_files_that_end_llama_cpp_are_refused_and_no_other_model_notices(
    drawn_weights: dict[str, Path], tmp_path: Path
) -> None:
    assert right(list(try_files(tmp_path, drawn_weights, SAMPLE, rest_s=REST_S)))


def test_texts_that_overflow_a_stack_are_read_or_refused(drawn_weights: dict[str, Path], tmp_path: Path) -> None:
    assert right(
        list(try_texts(tmp_path, drawn_weights, ["gpt-4o"], ["30,000 letters", "200,000 accents"], rest_s=REST_S))
    )


def test_schemas_without_end_are_refused(drawn_weights: dict[str, Path], tmp_path: Path) -> None:
    assert right(list(try_schemas(tmp_path, drawn_weights, ["a billion items", "itself"], rest_s=REST_S)))
