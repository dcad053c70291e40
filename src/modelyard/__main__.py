"""Entry point of the command line, which restarts the process with huge pages for large allocations.

It imports almost nothing before the restart.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from modelyard.system.standard_streams import open_missing

_TUNABLES = "GLIBC_TUNABLES"
_HUGE_PAGES = "glibc.malloc.hugetlb"
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def main() -> None:
    """Run the command line."""
    open_missing()
    tunables = with_huge_pages(os.environ.get(_TUNABLES, ""))
    if tunables is not None:
        os.environ[_TUNABLES] = tunables
        # glibc reads the tunables only when a process starts. If exec fails, loads take longer and nothing else.
        with suppress(OSError):
            os.execv(sys.executable, sys.orig_argv)
    from modelyard.cli import main as run_command

    run_command()


def with_huge_pages(tunables: str, kernel: Path = _KERNEL) -> str | None:
    """Return glibc's ``tunables`` with huge pages; None if they configure them already, or the kernel has none.

    A load touches the KV cache and repacked weights page after page: with pages of 2 MiB it takes half the time.

    Source: glibc manual, "Memory Allocation Tunables"; Linux, Documentation/admin-guide/mm/transhuge.rst.
    """
    if _HUGE_PAGES in tunables:
        return None
    try:
        if "[madvise]" not in kernel.read_text():
            return None
    except OSError:
        return None
    return ":".join(filter(None, (tunables, f"{_HUGE_PAGES}=1")))


if __name__ == "__main__":
    main()
