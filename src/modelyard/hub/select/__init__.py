"""Selects the files of a folder or repository that a model is served from."""
