"""From what a request brings to token ids."""
