"""Chat templates, which are rendered in processes with limits, and the grammars of answers."""
