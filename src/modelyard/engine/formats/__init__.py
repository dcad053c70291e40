"""Formats of tool calls and reasoning: one file a family, and one registry (``modelyard.engine.formats.registry``).

Parsers turn text into deltas (``modelyard.protocol.deltas``). They know neither HTTP nor llama.cpp.
"""
