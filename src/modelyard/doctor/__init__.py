"""Looks at the machine, the installation and the configuration, and says what is wrong with them."""
