"""How llama.cpp is built into .venv: as the environment says, else as before, else for what the machine has. Pure.

Needs nothing but Python, and an old one can read it: scripts/setup_venv.py refuses that by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modelyard.system.llama_builds import BuildFacts

VARIABLE = "MODELYARD_BACKEND"
# In .venv/backend, for a build that CMAKE_ARGS alone describes.
OWN_ARGUMENTS = "CMAKE_ARGS"
CPU_INSTEAD = f"For the CPU alone: {VARIABLE}=cpu make install"


class BuildRefused(Exception):
    """llama.cpp cannot be built as it was asked for; the message says what to do."""


@dataclass(frozen=True)
class Kept:
    """What .venv keeps of the last build.

    Attributes:
        chosen: what ``Build.chosen`` was; "" where there was none.
        cmake_args: the CMAKE_ARGS that llama.cpp was compiled with; None where pip took its own.
    """

    chosen: str = ""
    cmake_args: str | None = None


@dataclass(frozen=True)
class Build:
    """How llama.cpp is to be built.

    Attributes:
        chosen: what .venv/backend keeps: a backend that was chosen by hand, "auto" and the backend that was found, or
            OWN_ARGUMENTS.
        cmake_args: CMAKE_ARGS for it; "" where pip builds it so by itself.
        flags: what CFLAGS and CXXFLAGS need besides.
        what: the backend and the GPUs that it serves, for readers; "" for the CPU.
        notes: which GPUs of the machine it is not built for, and what that takes.
    """

    chosen: str
    cmake_args: str = ""
    flags: str = ""
    what: str = ""
    notes: tuple[str, ...] = ()


def plan_build(environment: Mapping[str, str], kept: Kept, find_facts: Callable[[], BuildFacts]) -> Build:
    """How llama.cpp is to be built.

    Args:
        environment: its MODELYARD_BACKEND and CMAKE_ARGS decide by hand; CMAKE_ARGS beside a backend are added.
        kept: the last build. What was chosen by hand stays until something else is.
        find_facts: finds what the machine has.

    Raises:
        BuildRefused: the backend is unknown, or something that it needs is missing.
    """
    # Imported here, as an old Python cannot read it.
    from modelyard.system.llama_builds import BACKENDS, LABELS, choose, cmake_args, compiler_flags, lack_for

    named, given = environment.get(VARIABLE, "").lower(), environment.get("CMAKE_ARGS")
    if named not in ("", "auto", *BACKENDS):
        raise BuildRefused(f"{VARIABLE}={named} names no backend. Known: auto, {', '.join(BACKENDS)}.")
    if not named and given is not None:
        return Build(OWN_ARGUMENTS, given)
    if not named and not kept.chosen and kept.cmake_args is not None:
        return Build(OWN_ARGUMENTS, kept.cmake_args)
    if not named and kept.chosen and not kept.chosen.startswith("auto"):
        return _as_before(kept)
    facts = find_facts()
    if named in BACKENDS:
        lack = lack_for(named, facts)
        if lack is not None:
            raise BuildRefused(f"llama.cpp cannot be built for {LABELS[named]} here. {lack}\n{CPU_INSTEAD}")
        backend, chosen, gpus, notes = named, named, (), ()
    else:
        choice = choose(facts)
        notes = tuple(map(str, choice.lacks))
        if not named and kept.chosen and choice.backend in ("cpu", kept.chosen.split()[-1]):
            # A driver that is not loaded today is no reason to compile all of it again.
            return _as_before(kept, notes)
        backend, chosen, gpus = choice.backend, f"auto {choice.backend}", choice.gpus
    what = "" if backend == "cpu" else LABELS[backend] + (f" ({' and '.join(gpus)})" if gpus else "")
    own = cmake_args(backend, facts)
    return Build(chosen, " ".join(filter(None, (own, given))), compiler_flags(own), what, notes)


def _as_before(kept: Kept, notes: tuple[str, ...] = ()) -> Build:
    """The last build, again for a new version of llama.cpp."""
    from modelyard.system.llama_builds import LABELS, compiler_flags

    arguments = kept.cmake_args or ""
    if kept.chosen == OWN_ARGUMENTS:
        return Build(OWN_ARGUMENTS, arguments)
    backend = kept.chosen.split()[-1]
    what = "" if backend == "cpu" else LABELS.get(backend, backend)
    return Build(kept.chosen, arguments, compiler_flags(arguments), what, notes)
