"""Plans and prepares the files that a model is loaded from: downloads, conversions, exports."""
