"""Programs that convert and quantise models; each runs in a process of its own."""
