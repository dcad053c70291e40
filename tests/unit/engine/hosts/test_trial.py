"""What a trial's process does is told in plain words, and nothing of it is left behind."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

from modelyard.engine.hosts.trial import TrialFailed, run_trial
from modelyard.engine.hosts.trial_task import EXACT_BYTES, TrialLimits, TrialTask, trial_of
from modelyard.engine.settings import EngineSettings
from modelyard.errors import OutOfDeviceMemory, UnusableModel

SETTINGS = EngineSettings("small", (Path("small.gguf"),), "Q4_0")
BEGIN = """
import json, os, pickle, signal, sys, time
task = pickle.load(sys.stdin.buffer)
task.limits.apply()
def say(**facts): print(json.dumps(facts), flush=True)
say(step="a prompt of one token")
"""


def task(cpu_s: float = 20.0, wall_s: float = 60.0) -> TrialTask:
    return TrialTask(SETTINGS, 100, repacks=True, limits=TrialLimits(cpu_s, wall_s, 1 << 34))


def run(program: str, tried: TrialTask | None = None) -> None:
    run_trial(tried or task(), program=("-c", BEGIN + textwrap.dedent(program)))


def test_what_passes_passes() -> None:
    run("print('a library says something'); say(passed=True)")


def test_what_ends_its_process_is_told_with_llama_cpps_last_words() -> None:
    program = """
        print("/build/llama.cpp/ggml/src/ggml.c:4304: GGML_ASSERT(c->type == GGML_TYPE_F32) failed", file=sys.stderr)
        sys.stderr.flush()
        os.abort()
    """
    with pytest.raises(TrialFailed) as failed:
        run(program)
    assert str(failed.value) == (
        "llama.cpp ends its process with a prompt of one token: ggml.c:4304: GGML_ASSERT(c->type == GGML_TYPE_F32) "
        "failed. The file is damaged, or of a kind that llama.cpp does not compute. Use another file of this model."
    )


def test_a_device_without_memory_may_have_some_another_time() -> None:
    with pytest.raises(OutOfDeviceMemory, match="failed to allocate CUDA0"):
        run("say(failure='failed to allocate CUDA0 buffer', lacks_device_memory=True)")
    with pytest.raises(UnusableModel) as failed:
        run("say(failure='failed to allocate CPU buffer', lacks_device_memory=False)")
    assert type(failed.value) is UnusableModel


def test_a_signal_without_words_is_named() -> None:
    with pytest.raises(TrialFailed, match="with a prompt of one token: Segmentation fault"):
        run("os.kill(os.getpid(), signal.SIGSEGV)")


def test_what_the_system_ends_may_go_well_another_time() -> None:
    with pytest.raises(UnusableModel, match="Memory may have run out") as failed:
        run("os.kill(os.getpid(), signal.SIGKILL)")
    assert not isinstance(failed.value, TrialFailed)


def test_what_never_ends_is_ended_by_its_processor_time() -> None:
    with pytest.raises(TrialFailed, match="does not come to an end with a prompt of one token"):
        run("while True: pass", task(cpu_s=0.5))


def test_what_the_clock_ends_may_have_met_a_busy_machine() -> None:
    with pytest.raises(UnusableModel, match="has not come to an end with a prompt of one token") as failed:
        run("time.sleep(600)", task(wall_s=1.0))
    assert not isinstance(failed.value, TrialFailed)


def test_nonsense_is_told_with_the_step_that_gave_it() -> None:
    with pytest.raises(TrialFailed, match="In its trial, with a prompt of one token, its logits are not finite"):
        run("say(failure='its logits are not finite')")


def test_what_a_load_says_is_told_as_it_is() -> None:
    with pytest.raises(TrialFailed) as failed:
        run("say(step='loading'); say(failure='llama.cpp cannot load it')")
    assert str(failed.value) == "llama.cpp cannot load it"


def test_a_load_that_lacks_memory_is_not_the_models_fault() -> None:
    with pytest.raises(UnusableModel, match="failed to allocate") as failed:
        run("say(step='loading'); say(failure='failed to allocate buffer')")
    assert not isinstance(failed.value, TrialFailed)


def test_a_trial_that_is_given_up_is_ended(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = BEGIN + f"open({str(note)!r}, 'w').write(str(os.getpid())); say(step='waiting'); time.sleep(600)"
    with pytest.raises(UnusableModel, match="given up"):
        run_trial(task(), report=lambda step: step != "waiting", program=("-c", program))
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_a_program_that_fails_otherwise_is_told_with_its_status() -> None:
    with pytest.raises(UnusableModel, match="exit status 7") as failed:
        run("os._exit(7)")
    assert not isinstance(failed.value, TrialFailed)


def test_a_trial_is_the_engine_with_less_of_everything() -> None:
    settings = EngineSettings(
        "small",
        (Path("small.gguf"),),
        "Q4_0",
        context_length=131_072,
        max_seqs=32,
        batch_tokens=2048,
        kv_type="q8_0",
        flash_attn=True,
        kv_keep="disk",
        kv_dir=Path("kept"),
        draft=(Path("draft.gguf"),),
        projector=Path("mmproj.gguf"),
    )
    tried = trial_of(settings, file_bytes=1000, trained_context=4096, vocabulary_size=100, cores=2)
    assert tried.settings.context_length == 512
    assert tried.settings.batch_tokens == 64
    assert (tried.settings.kv_type, tried.settings.flash_attn) == ("q8_0", True)
    assert (tried.settings.draft, tried.settings.projector, tried.settings.kv_keep) == ((), None, "off")
    assert tried.repacks


def test_the_trial_of_a_large_file_makes_no_copies_and_has_more_time() -> None:
    def tried(file_bytes: int) -> TrialTask:
        return trial_of(SETTINGS, file_bytes=file_bytes, trained_context=None, vocabulary_size=100, cores=8)

    small, large = tried(EXACT_BYTES), tried(8 * EXACT_BYTES)
    assert not large.repacks
    assert large.settings.batch_tokens < small.settings.batch_tokens
    assert large.limits.cpu_s > small.limits.cpu_s
    assert large.limits.wall_s > small.limits.wall_s


def test_a_model_of_a_short_context_is_tried_with_that() -> None:
    tried = trial_of(SETTINGS, file_bytes=1, trained_context=1, vocabulary_size=100, cores=1)
    assert tried.settings.context_length == 1
