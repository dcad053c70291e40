"""The control groups around this process, of either version of Linux's interface.

Source: Linux, Documentation/admin-guide/cgroup-v2.rst and Documentation/admin-guide/cgroup-v1/cgroups.rst; man 7
cgroups, /proc/PID/cgroup.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

OWN_CGROUPS = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")


class ControlGroup(NamedTuple):
    """A control group that a process is in.

    Attributes:
        folder: the folder of its files.
        is_v1: whether the files are those of the first version of the interface.
    """

    folder: Path
    is_v1: bool


def control_groups(controller: str, own_cgroups: Path = OWN_CGROUPS, cgroups: Path = CGROUPS) -> Iterator[ControlGroup]:
    """Yield the groups around this process in which ``controller`` may set limits, from the inside out.

    Every group of the second version is among them; a group without the controller lacks its files. Within a cgroup
    namespace, the root is the process's own group.
    """
    for line in lines(own_cgroups):
        _, controllers, path = line.split(":", 2)
        is_v1 = controller in controllers.split(",")
        if controllers and not is_v1:
            continue
        root = cgroups / controller if is_v1 else cgroups
        folder = root / path.lstrip("/")
        while folder != root:
            yield ControlGroup(folder, is_v1)
            folder = folder.parent
        yield ControlGroup(root, is_v1)


def lines(path: Path) -> list[str]:
    """Return the lines of a file of the kernel; none if it cannot be read."""
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
