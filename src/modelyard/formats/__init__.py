"""Reads the file formats of models, and checks them before anything else opens them."""
