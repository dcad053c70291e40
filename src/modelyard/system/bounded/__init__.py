"""Processes with limits of time and memory, for the foreign code of models and requests."""
