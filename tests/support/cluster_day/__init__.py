"""A day of a large cluster on paper: nodes and requests are numbers, the planner and the router are the real ones."""
