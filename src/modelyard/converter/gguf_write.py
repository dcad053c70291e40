"""Writes a GGUF file and reports the progress."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final

from modelyard.system.reporting_process import report

_POLL_S: Final = 0.2


def write(writer: Any, out: Path) -> None:
    """Write the file, and report the written fraction of it."""
    total = sum(tensor.nbytes for shard in writer.tensors for tensor in shard.values())
    is_written = threading.Event()

    def report_progress() -> None:
        while not is_written.wait(_POLL_S):
            if out.exists():
                report(step="converting", fraction=min(1.0, out.stat().st_size / max(1, total)))

    reporter = threading.Thread(target=report_progress, daemon=True)
    reporter.start()
    try:
        writer.write_header_to_file(path=out)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    finally:
        is_written.set()
        reporter.join()
