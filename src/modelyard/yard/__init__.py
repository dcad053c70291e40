"""Which models exist, which of them are resident, and who may use them."""
