"""Many machines behind one address: which node holds which models, and which node answers a request."""
