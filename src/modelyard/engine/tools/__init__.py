"""Tool calls: one file a format family, and one registry (``modelyard.engine.tools.registry``).

Text comes in, deltas go out (``modelyard.engine.deltas``). No HTTP, no llama.cpp.
"""
