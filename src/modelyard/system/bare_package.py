"""Imports single modules of a package without running its ``__init__``.

Importing ``package.module`` runs ``package/__init__.py`` first, which may import much more. A package that is entered
bare has its ``__path__``, so that its modules are found, and runs its ``__init__`` on the first access to a missing
attribute, so code that uses the whole package still works.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any

# Dunder names that run ``__init__``. Tools that look through all modules (inspect, pickle, doctest) probe other dunder
# names, which must not load anything.
_LOADING_DUNDERS = frozenset({"__all__", "__version__"})


def enter_bare(package: str) -> None:
    """Put ``package`` into ``sys.modules`` without running its ``__init__``, unless it is imported already.

    Raises:
        ModuleNotFoundError: it is not installed, or is not a package.
    """
    if package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    if spec is None or spec.loader is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No package named '{package}' is installed", name=package)
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__getattr__"] = lambda name: _load_attribute(module, spec, name)
    # Another thread may have imported the package meanwhile.
    sys.modules.setdefault(package, module)


def _load_attribute(module: ModuleType, spec: importlib.machinery.ModuleSpec, name: str) -> Any:
    """Run the package's ``__init__`` and return its attribute ``name``."""
    if name.startswith("__") and name not in _LOADING_DUNDERS:
        raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'", name=name, obj=module)
    hook = module.__dict__.pop("__getattr__", None)
    try:
        assert spec.loader is not None
        spec.loader.exec_module(module)
    except BaseException:
        # The next access tries again, as after a failed import.
        module.__dict__["__getattr__"] = hook
        raise
    return getattr(module, name)
