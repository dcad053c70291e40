"""The command line, in a process that was started for large allocations.

Imports next to nothing before that is settled: the process may start over.
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
        # The same process, from its beginning: glibc reads this once. Without it only loads take longer.
        with suppress(OSError):
            os.execv(sys.executable, sys.orig_argv)
    from modelyard.cli import main as run_command

    run_command()


def with_huge_pages(tunables: str, kernel: Path = _KERNEL) -> str | None:
    """``tunables`` of glibc that ask for huge pages; None where that is settled, or the kernel gives none on demand.

    A KV cache and repacked weights are touched once, page after page: with pages of 2 MiB a load takes half the time.

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
