"""The software bill of materials that goes into the wheel: CycloneDX, of what requirements.lock pins.

    python scripts/sbom.py      # write it again from requirements.lock, as make lock does

The wheel itself accepts other versions of these packages; those named here are the ones that it is tested with.
"""

from __future__ import annotations

import json
import sys
import tomllib
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lock_file import Pin, parse_lock

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ROOT / "requirements.lock"
BILL = ROOT / "sbom.cdx.json"
NAME = "modelyard"

# A name space of its own for serial numbers that follow from the contents.
_SERIALS = uuid.uuid5(uuid.NAMESPACE_OID, "modelyard sbom")


def bill_of(pins: Sequence[Pin]) -> dict[str, Any]:
    """The bill of materials of ``pins``. Equal pins make equal bills: it has no time in it."""
    components = [_component(pin) for pin in sorted(pins, key=lambda pin: pin.name)]
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": NAME, "version": _version(), "bom-ref": NAME}},
        "components": components,
        "dependencies": [
            {"ref": NAME, "dependsOn": _direct()},
            *({"ref": component["bom-ref"]} for component in components),
        ],
    }
    contents = json.dumps(bill, sort_keys=True)
    return {**bill, "serialNumber": f"urn:uuid:{uuid.uuid5(_SERIALS, contents)}"}


def write_bill(bill: dict[str, Any]) -> None:
    """Write it where the build of the wheel finds it."""
    BILL.write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n", "utf-8")


def _component(pin: Pin) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "name": pin.name,
        "version": pin.version,
        "purl": f"pkg:pypi/{pin.name}@{pin.version}",
        "bom-ref": f"pkg:pypi/{pin.name}@{pin.version}",
        "scope": "required",
    }
    if pin.marker:
        component["properties"] = [{"name": "modelyard:marker", "value": pin.marker}]
    return component


def _direct() -> list[str]:
    """The components that pyproject.toml names."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    pins = parse_lock(RUNTIME.read_text("utf-8"))
    return sorted(f"pkg:pypi/{pin.name}@{pin.version}" for pin in pins if pin.name in names)


def _version() -> str:
    text = (ROOT / "src" / NAME / "version.py").read_text("utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("__version__ = ")]
    return line.partition('"')[2].rstrip('"')


if __name__ == "__main__":
    write_bill(bill_of(parse_lock(RUNTIME.read_text("utf-8"))))
    sys.exit(0)
