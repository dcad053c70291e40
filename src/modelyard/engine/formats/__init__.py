"""Formats of tool calls and reasoning: ``families`` has a file for each family, ``registry`` finds
the one of a chat template.

Parsers turn text into deltas (``modelyard.protocol.deltas``). They know neither HTTP nor llama.cpp.
"""
