"""Prints the version, features and devices of llama.cpp as JSON: ``python -m modelyard.engine.llama.report``.

Runs as a program of its own: a llama.cpp built for another processor ends its process when it is loaded.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from modelyard.engine.llama import (
    backends,
    can_offload,
    devices,
    features,
    missing_backends,
    version,
)
from modelyard.engine.placing import accelerators

if __name__ == "__main__":
    found = devices()
    facts = {
        "version": version(),
        "can_offload": can_offload(),
        "backends": backends(),
        "missing": [asdict(backend) for backend in missing_backends()],
        "features": features(),
        "devices": [asdict(device) for device in found],
        "accelerators": [device.name for device in accelerators(found)],
    }
    print(json.dumps(facts))  # noqa: T201
