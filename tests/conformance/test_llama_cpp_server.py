"""The tests of llama.cpp's server pass against this one, but for what differs on purpose."""

from __future__ import annotations

import pytest

from conformance.llama_cpp_server.differences import DIFFERENCES, OTHER_FILES
from conformance.llama_cpp_server.run import WAIT_S, compare, run, suite_folder


@pytest.mark.long
@pytest.mark.timeout(WAIT_S)
def test_llama_cpp_s_own_tests_pass_but_for_what_differs_on_purpose() -> None:
    compared = run(suite_folder())
    print(compared.table())
    assert not compared.failed, compared.table()
    assert not compared.outdated, compared.table()
    assert len(compared.passed) > len(compared.differs)


def test_every_difference_has_a_reason() -> None:
    assert all(reason.endswith(".") for reason in (*DIFFERENCES.values(), *OTHER_FILES.values()))


def test_outcomes_are_sorted_by_what_is_known_to_differ() -> None:
    outcomes = {
        "unit/a.py::test_one": ("passed", ""),
        "unit/a.py::test_two[x]": ("failed", "why"),
        "unit/a.py::test_three": ("failed", "how"),
        "unit/a.py::test_four": ("skipped", "slow"),
        "unit/a.py::test_five": ("passed", ""),
    }
    compared = compare(outcomes, {"a.py::test_two": "On purpose.", "a.py::test_five": "No longer."})
    assert compared.passed == ["a.py::test_one", "a.py::test_five"]
    assert compared.differs == {"a.py::test_two[x]": "On purpose."}
    assert compared.failed == {"a.py::test_three": "how"}
    assert compared.skipped == {"a.py::test_four": "slow"}
    assert compared.outdated == ["a.py::test_five"]
