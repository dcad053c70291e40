"""Prints the devices of this machine as a line of JSON for each line that it reads, until standard input ends."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from modelyard.engine.llama import devices


def main() -> None:
    """Answer each line of standard input."""
    for _ in sys.stdin:
        sys.stdout.write(json.dumps([asdict(device) for device in devices()]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
