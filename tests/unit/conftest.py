"""Marks the unit tests that take long, which ``make quick`` leaves out and ``make test`` starts with."""

from __future__ import annotations

from typing import Final

import pytest

# Files, or tests in them: fuzzing, simulations, processes that are killed or run out of a limit.
SLOW: Final = (
    "api/mcp/test_session_requests.py::test_a_stream_of_events_tells_what_its_key_may_see",
    "api/server/test_activity.py::test_the_events_begin_with_a_snapshot_and_go_on_with_changes",
    "api/test_additions.py",
    "api/test_media_decoders.py",
    "cli/client/test_find.py::test_a_running_server_that_hangs_is_passed_over_in_a_bounded_time",
    "config/test_robustness.py",
    "converter/test_class_position.py",
    "converter/test_gemma_3n_tower.py",
    "engine/chat/test_histories.py::test_every_template_writes_out_every_history",
    "engine/chat/test_template_limits.py",
    "engine/formats/test_parsing.py::test_no_text_raises_and_its_split_does_not_matter",
    "engine/guidance/test_compiler.py",
    "engine/guidance/test_matcher.py",
    "engine/guidance/test_trial.py",
    "engine/hosts/test_trial.py",
    "engine/input/test_tokenizer_process.py",
    "engine/kv/test_cache.py::TestBooks",
    "engine/scheduling/test_fair_share_processes.py",
    "engine/scheduling/test_scheduler.py::test_any_mix_of_requests_is_served_in_order_and_ends",
    "formats/gguf/test_fuzzed_files.py",
    "formats/gguf/test_header.py::test_a_large_vocabulary_is_read_in_a_moment",
    "formats/uqff/test_reader.py",
    "inprocess/http_server/test_protocol.py",
    "inprocess/http_server/test_uvloop.py",
    "inprocess/test_model.py",
    "inprocess/test_model_ends.py",
    "system/test_supervisor.py",
    "test_imports.py",
    "yard/residency/test_broken_machines.py",
    "yard/residency/test_choice.py",
    "yard/residency/test_costs.py",
    "yard/residency/test_simulation.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them before pytest selects by marks, and put their files first.

    Files are handed out to processes in this order: at the end there are short ones, and no process ends alone.
    """
    files = set()
    for item in items:
        if item.nodeid.removeprefix("tests/unit/").startswith(SLOW):
            item.add_marker("slow")
            files.add(item.path)
    items.sort(key=lambda item: item.path not in files)
