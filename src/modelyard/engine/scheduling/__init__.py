"""Which sequences the next step computes, and which engine computes next."""
