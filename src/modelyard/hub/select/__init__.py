"""Chooses which files of a repository are served."""
