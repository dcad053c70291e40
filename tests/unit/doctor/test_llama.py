"""Asking llama.cpp what it is, also where it cannot answer."""

from __future__ import annotations

import pytest

from modelyard.doctor.llama import LlamaFacts, probe_llama
from modelyard.engine.llama import features, version


def test_the_installed_llama_cpp_answers():
    facts = probe_llama()
    assert (facts.problem, facts.version, facts.features) == ("", version(), features())
    assert "cpu" in {device["kind"] for device in facts.devices}


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "It ended its process with SIGILL."),
        ("raise ImportError('libllama.so: no such file')", "It cannot be loaded: ImportError: libllama.so: no such"),
        (
            "from modelyard.errors import LlamaCppUnusable; raise LlamaCppUnusable('libcuda.so.1: no such file')",
            "It cannot be loaded: libcuda.so.1: no such file",
        ),
        ("import sys; sys.exit(3)", "It cannot be loaded: there is no error message"),
        ("print('{}')", "It cannot be loaded: there is no error message"),
    ],
)
def test_one_that_is_broken_is_told_and_breaks_nothing(program: str, problem: str):
    facts = probe_llama(("-c", program))
    assert facts.problem.startswith(problem)
    assert facts == LlamaFacts(facts.problem)
    assert "modelyard doctor" not in facts.problem


def test_one_that_hangs_is_given_up():
    assert probe_llama(("-c", "input()"), timeout_s=0.0).problem == "It did not load within 0 s."
