"""Values that cross threads and processes: requests, prompts, events, and what describes a model."""
