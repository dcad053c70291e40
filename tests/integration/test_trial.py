"""Models are tried in a process of their own: those that llama.cpp serves pass, others are refused in plain words."""

from __future__ import annotations
