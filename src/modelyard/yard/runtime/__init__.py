"""The engines of a yard: how they are made, loaded, supervised and freed, and the requests in them."""
