"""Tiny random checkpoints of every architecture, served and compared with what transformers computes of them."""
