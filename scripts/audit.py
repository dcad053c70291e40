"""Look for known vulnerabilities of what the lock files pin, with pip-audit, which need not be installed.

    python scripts/audit.py

uv runs it in an environment of its own, and it asks the advisory source that it has by default. The exit status is 1
where something was found, and 2 where packages could not be looked up, which is no reason to be calm.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements/build.lock", "requirements/convert.lock", "requirements/dev.lock")
MAX_S = 600


class Findings(NamedTuple):
    """What an audit says: vulnerable packages with the names of their advisories, and those it knows nothing of."""

    vulnerable: dict[str, list[str]]
    unknown: list[str]

    @property
    def status(self) -> int:
        """Return the exit status: 1 for a known vulnerability, 2 where none could be looked up, else 0."""
        return 1 if self.vulnerable else 2 if self.unknown else 0


def findings(report: dict[str, Any]) -> Findings:
    """What pip-audit's JSON says."""
    vulnerable: dict[str, list[str]] = {}
    unknown: list[str] = []
    for package in report["dependencies"]:
        if "skip_reason" in package:
            unknown.append(package["name"])
        elif package["vulns"]:
            name = f"{package['name']} {package['version']}"
            vulnerable[name] = [each["id"] for each in package["vulns"]]
    return Findings(vulnerable, unknown)


def command(lock: Path) -> list[str]:
    """What audits one lock file: by its pins alone, without installing or resolving anything."""
    uv = Path(sys.executable).with_name("uv")
    options = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json", "-r", str(lock)]
    return [str(uv), "tool", "run", "pip-audit", *options]


def audit(lock: Path) -> Findings | str:
    """What is known of the pins in a lock file, or why that cannot be found out."""
    try:
        done = subprocess.run(command(lock), capture_output=True, text=True, timeout=MAX_S, check=False)
        return findings(json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        return f"no advisory source has answered within {MAX_S} s"
    except OSError as error:
        return f"uv cannot be run ({error}); it comes with the dev extra"
    except (ValueError, KeyError):
        return f"pip-audit says: {done.stderr.strip()[-500:]}"


def main() -> int:
    """Audit all lock files."""
    statuses = []
    for name in LOCKS:
        found = audit(ROOT / name)
        if isinstance(found, str):
            print(f"{name}: {found}")
            statuses.append(2)
            continue
        for package, advisories in found.vulnerable.items():
            print(f"{name}: {package}: {', '.join(advisories)}")
        if found.unknown:
            print(f"{name}: the advisory source knows nothing of {len(found.unknown)} packages: is it reached?")
        if not found.status:
            print(f"{name}: nothing is known against what it pins")
        statuses.append(found.status)
    return 1 if 1 in statuses else max(statuses)


if __name__ == "__main__":
    sys.exit(main())
