"""From the prompts of requests to token ids."""
