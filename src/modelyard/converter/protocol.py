"""The protocol between a converter and the process that started it: JSON objects on standard output, one per line.

A report is a progress (``step``, in the present participle, and ``fraction``), a ``notice`` or an ``error``;
``is_model_fault`` marks an error that occurs with this model on every machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final

from modelyard.system.reporting_process import end_with_parent, report

_NICENESS: Final = 5


class Refused(Exception):
    """The input cannot be converted; the message contains the reason and a remedy."""


def run(main: Callable[[list[str]], None]) -> int:
    """Run ``main`` on the arguments of the command line, and return the exit status.

    The process ends at once when its parent ends, which closes its standard input. It runs at low priority, so that
    servers are not slowed down.
    """
    end_with_parent()
    os.nice(_NICENESS)
    try:
        main(sys.argv[1:])
    except Refused as refused:
        report(error=str(refused), is_model_fault=True)
        return 1
    except MemoryError:
        report(error="Memory ran out while the model was converted. Close other programs, or unload models.")
        return 1
    except OSError as failure:
        report(error=f"The conversion failed: {failure}. Check the disk and the permissions.")
        return 1
    except Exception as failure:
        report(error=f"The conversion failed: {type(failure).__name__}: {failure}", is_model_fault=True)
        raise
    return 0
