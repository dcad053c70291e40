"""All errors are imported from one place, and go from one process to another by that name."""

from __future__ import annotations

import pickle

import pytest

from modelyard import errors
from modelyard.api.openapi.errors import EXAMPLES


def subclasses(kind: type) -> set[type]:
    return {each for child in kind.__subclasses__() for each in (child, *subclasses(child))}


def test_every_error_is_public() -> None:
    ours = {each for each in subclasses(errors.ModelyardError) if each.__module__.startswith("modelyard.errors")}
    private = {each for each in ours if each.__module__ != "modelyard.errors"}
    assert {each.__name__ for each in private} == {"MessageError"}
    assert {each.__name__ for each in ours - private} <= set(errors.__all__)


@pytest.mark.parametrize("error", [each for each in EXAMPLES if type(each).__module__ == "modelyard.errors"], ids=repr)
def test_an_error_survives_a_pickle(error: errors.ModelyardError) -> None:
    data = pickle.dumps(error)
    assert f"{errors.__name__}." not in data.decode("latin-1")
    again = pickle.loads(data)
    assert (type(again), str(again), again.__dict__) == (type(error), str(error), error.__dict__)
