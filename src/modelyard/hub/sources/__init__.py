"""Sources of model files: the hub, folders, caches, conversions."""
