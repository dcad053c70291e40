"""What engines need is imported on two cores at the same time, where processes of their own are expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.yard.runtime import engine_hosts
from modelyard.yard.runtime.engine_hosts import EngineHosts


@pytest.mark.parametrize(
    ("expects_processes", "has_accelerators", "order"),
    [
        (True, False, ["program of processes", "llama.cpp"]),
        # Engines that share an accelerator run on threads.
        (True, True, ["llama.cpp"]),
        (False, False, ["llama.cpp"]),
    ],
)
def test_the_program_of_processes_starts_before_llama_cpp_is_imported(
    expects_processes: bool, has_accelerators: bool, order: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done: list[str] = []
    monkeypatch.setattr(EngineHosts, "prepare_process", lambda _: done.append("program of processes"))
    monkeypatch.setattr(EngineHosts, "_import_engines", lambda _: done.append("llama.cpp"))
    monkeypatch.setattr(engine_hosts, "may_have_accelerators", lambda: has_accelerators)
    EngineHosts(folder=tmp_path, expects_processes=expects_processes).close()
    assert done == order


def test_nothing_is_left_running_where_llama_cpp_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_: EngineHosts) -> None:
        raise ImportError("libcuda.so.1")

    closed: list[EngineHosts] = []
    close = EngineHosts.close

    def note_close(hosts: EngineHosts) -> None:
        closed.append(hosts)
        close(hosts)

    monkeypatch.setattr(EngineHosts, "_import_engines", fail)
    monkeypatch.setattr(EngineHosts, "close", note_close)
    with pytest.raises(ImportError):
        EngineHosts(folder=tmp_path)
    assert len(closed) == 1
