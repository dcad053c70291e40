"""The one import of llama-cpp-python: its low-level modules alone.

The package's own ``__init__`` imports its high-level interface, and with that a cache that unpickles what it finds on
disk (diskcache), a template engine and more that nothing here uses.
"""

from __future__ import annotations

from modelyard.system.bare_package import enter_bare

enter_bare("llama_cpp")

# After it, or their package would be imported in full.
import llama_cpp.llama_cpp as lib  # noqa: E402
import llama_cpp.mtmd_cpp as mtmd  # noqa: E402
from llama_cpp._ggml import libggml as ggml  # noqa: E402

__all__ = ["ggml", "lib", "mtmd"]
