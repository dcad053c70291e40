"""What every request passes through on its way to its endpoint, and every answer on its way out."""
