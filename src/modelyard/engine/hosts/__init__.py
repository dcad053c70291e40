"""Engines in processes of their own, and the checks of models and engines that need a process of their own."""
