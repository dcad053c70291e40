"""Plans and makes what has to be there before a model is loaded."""
