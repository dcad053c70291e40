"""The KV cache: its slots, prefixes that requests share, and copies in memory and on disk."""
