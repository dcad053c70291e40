"""The server as a service of systemd."""
