"""The KV cache: its slots, shared prefixes, and copies in memory and on disk."""
