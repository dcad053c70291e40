"""The engine of models that embed or rank."""
