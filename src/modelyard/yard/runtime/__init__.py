"""What brings engines to life and keeps them there."""
