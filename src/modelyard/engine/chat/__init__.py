"""Chat templates, in processes that they cannot leave."""
