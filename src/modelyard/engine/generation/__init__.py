"""Generates text: admits sequences, and runs the loop that computes them."""
