"""Measures Modelyard beside its peers; see bench/README.md."""
