"""Tool calls: one file a format family, and one registry (``modelyard.engine.formats.registry``).

Text comes in, deltas go out (``modelyard.protocol.deltas``). No HTTP, no llama.cpp.
"""
