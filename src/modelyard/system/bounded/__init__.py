"""Foreign code of models and requests, in processes of their own that are held to limits."""
