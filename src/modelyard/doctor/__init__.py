"""Checks the machine, the installation and the configuration, and reports what is wrong with them."""
