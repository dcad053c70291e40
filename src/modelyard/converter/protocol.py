"""How a converter talks to the process that started it: JSON objects on standard output, one a line."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

_NICENESS: Final = 10


class Refused(Exception):
    """The input cannot be converted; the message says why and what to do."""


def say(**facts: Any) -> None:
    """Tell the parent something: step (in the present participle) and fraction, a notice, or an error.

    An error that is_model_fault would be the same on every machine.
    """
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def run(main: Callable[[list[str]], None]) -> int:
    """Run ``main`` on the arguments of the command line; the exit status.

    Ends at once when the parent does, which closes our standard input. Leaves the cores to those who serve.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICENESS)
    try:
        main(sys.argv[1:])
    except Refused as refused:
        say(error=str(refused), is_model_fault=True)
        return 1
    except MemoryError:
        say(error="Memory ran out while the model was converted. Close other programs, or unload models.")
        return 1
    except OSError as failure:
        say(error=f"The conversion failed: {failure}. Check the disk and the permissions.")
        return 1
    except Exception as failure:
        say(error=f"The conversion failed: {type(failure).__name__}: {failure}", is_model_fault=True)
        raise
    return 0


def _end_with_parent() -> None:
    # Not through Python's buffered stdin, whose lock the interpreter wants at its end.
    while os.read(0, 4096):
        pass
    os._exit(1)
