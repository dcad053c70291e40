"""Programs that convert and quantise models, each in a process of its own."""
