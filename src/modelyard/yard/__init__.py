"""The models of a server: which exist, which are resident, and who may use them."""
