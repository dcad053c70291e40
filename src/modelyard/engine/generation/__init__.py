"""What belongs to one sequence while it is generated, and while it is between two engines."""
