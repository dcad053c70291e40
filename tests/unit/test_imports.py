"""Importing is cheap: what is heavy is loaded where it is used."""

from __future__ import annotations

import pydoc
import subprocess
import sys

import pytest

import modelyard
from modelyard.inprocess.public import HOMES

HEAVY = ("fastapi", "huggingface_hub", "llama_cpp", "mcp", "numpy", "openai", "ray", "torch", "uvicorn")


def test_importing_loads_nothing_heavy() -> None:
    # What none of them loads beside the others, none loads by itself: one process shows it of all.
    modules = "modelyard, modelyard.cli, modelyard.config, modelyard.hub"
    program = f"import sys, {modules}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []


def test_of_the_binding_only_its_low_level_modules_are_imported() -> None:
    program = (
        "import sys, modelyard.engine.llama, modelyard.converter.quantize, modelyard.engine.engine\n"
        "print(*(name for name in ('diskcache', 'sqlite3') if name in sys.modules))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('llama_cpp.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    unwanted, parts = done.stdout.split("\n")[:2]
    assert unwanted == ""
    assert parts.split() == [f"llama_cpp.{name}" for name in ("_ctypes_extensions", "_ggml", "llama_cpp", "mtmd_cpp")]


def test_a_program_may_use_the_whole_binding_beside_modelyard() -> None:
    program = "import modelyard.engine.llama, llama_cpp; from llama_cpp import Llama; print(Llama.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "Llama\n"


def test_builders_load_nothing_heavy() -> None:
    program = (
        "import sys, modelyard\n"
        "modelyard.MultiModelBuilder().add_model(modelyard.TextModelBuilder('org/model')).config()\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    assert {*HOMES, "ModelyardError", "__version__"} == set(modelyard.__all__)
    for name in HOMES:
        assert getattr(modelyard, name).__doc__, name
    assert set(modelyard.__all__) <= set(dir(modelyard))


def test_what_is_not_public_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'modelyard' has no attribute 'Yard'"):
        _ = modelyard.Yard  # type: ignore[attr-defined]


def test_the_help_reads_as_a_manual() -> None:
    page = pydoc.plain(pydoc.render_doc(modelyard))
    for said in (
        "MultiModelBuilder()",
        "class AsyncModel(",
        "send_chat_request_with_model(self, request",
        "with_isq(self, isq",
        "serve(model",
        "Raises:",
    ):
        assert said in page, said
