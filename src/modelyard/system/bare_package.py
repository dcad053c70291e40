"""Single modules of a package whose ``__init__`` imports more than is wanted.

Importing ``package.module`` runs ``package/__init__.py`` first. A package that is entered bare has its ``__path__``,
so that its modules are found, and runs its ``__init__`` when somebody asks it for a name that it does not have yet:
another part of the program that uses the whole package goes on to find it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any

# What `from package import *` asks for, and names that are part of what a package offers. Tools that look through all
# modules (inspect, pickle, doctest) probe other names of that form, which must not load anything.
_OFFERED_DUNDERS = frozenset({"__all__", "__version__"})


def enter_bare(package: str) -> None:
    """Have ``package`` in ``sys.modules`` without its ``__init__`` run; one that is imported already stays as it is.

    Raises:
        ModuleNotFoundError: it is not installed, or is no package.
    """
    if package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    if spec is None or spec.loader is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No package named '{package}' is installed", name=package)
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__getattr__"] = lambda name: _completed(module, spec, name)
    # Another thread may have imported it meanwhile.
    sys.modules.setdefault(package, module)


def _completed(module: ModuleType, spec: importlib.machinery.ModuleSpec, name: str) -> Any:
    """A name of the package that only its ``__init__`` brings, which runs for it."""
    if name.startswith("__") and name not in _OFFERED_DUNDERS:
        raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'", name=name, obj=module)
    hook = module.__dict__.pop("__getattr__", None)
    try:
        assert spec.loader is not None
        spec.loader.exec_module(module)
    except BaseException:
        # As an import that fails: the next one tries again.
        module.__dict__["__getattr__"] = hook
        raise
    return getattr(module, name)
