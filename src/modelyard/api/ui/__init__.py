"""The page at /ui: its files, which are built from ``web/``."""
