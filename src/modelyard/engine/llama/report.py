"""Prints what the installed llama.cpp is and can, as JSON: ``python -m modelyard.engine.llama.report``.

A program of its own: a llama.cpp that was built for another processor ends its process when it is loaded.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from modelyard.engine.llama import can_offload, devices, features, version

if __name__ == "__main__":
    facts = {
        "version": version(),
        "can_offload": can_offload(),
        "features": features(),
        "devices": [asdict(device) for device in devices()],
    }
    print(json.dumps(facts))  # noqa: T201
