"""Packages whose modules are imported without what their ``__init__`` brings."""

from __future__ import annotations

import importlib
import pickle
import sys

import pytest

from modelyard.system.bare_package import enter_bare


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose __init__ is counted; it has two modules."""
    folder = tmp_path / "large_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("from .high import Whole\n__version__ = '1.2'\n")
    (folder / "high.py").write_text("from . import low\nclass Whole: ...\n")
    (folder / "low.py").write_text("NUMBER = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "large_package"
    for name in [name for name in sys.modules if name.partition(".")[0] == "large_package"]:
        del sys.modules[name]


def test_a_module_comes_without_the_rest_of_its_package(package):
    enter_bare(package)
    assert importlib.import_module("large_package.low").NUMBER == 7
    assert "large_package.high" not in sys.modules


@pytest.mark.parametrize("name", ["Whole", "__version__"])
def test_who_asks_for_the_whole_package_has_it(package, name):
    enter_bare(package)
    low = importlib.import_module("large_package.low")
    assert getattr(sys.modules[package], name)
    assert "large_package.high" in sys.modules
    assert sys.modules["large_package.low"] is low


def test_a_star_import_brings_what_the_whole_package_has(package):
    enter_bare(package)
    names = {}
    exec("from large_package import *", names)
    assert names["Whole"].__module__ == "large_package.high"


def test_tools_that_look_through_all_modules_load_nothing(package):
    enter_bare(package)
    assert not hasattr(sys.modules[package], "__wrapped__")
    pickle.dumps(len)
    assert "large_package.high" not in sys.modules


def test_a_name_that_the_package_does_not_have_is_an_attribute_error(package):
    enter_bare(package)
    with pytest.raises(AttributeError, match="Nothing"):
        _ = sys.modules[package].Nothing


def test_a_package_that_was_imported_before_stays_as_it_is(package):
    whole = importlib.import_module(package)
    enter_bare(package)
    assert sys.modules[package] is whole


def test_an_init_that_fails_is_tried_again(package, tmp_path):
    enter_bare(package)
    high = tmp_path / package / "high.py"
    source = high.read_text()
    high.write_text("raise ImportError('a part is missing')")
    with pytest.raises(ImportError, match="a part is missing"):
        _ = sys.modules[package].Whole
    high.write_text(source + "\n")
    importlib.invalidate_caches()
    assert sys.modules[package].Whole


def test_what_is_not_installed_is_refused_by_name():
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        enter_bare("no_such_package")
