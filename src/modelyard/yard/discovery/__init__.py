"""Models of this machine that no configuration names: found, checked, and served beside the configured ones."""
