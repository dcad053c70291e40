"""Where files of models come from: the Hub, folders, caches, conversions."""
