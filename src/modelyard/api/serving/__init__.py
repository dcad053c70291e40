"""What endpoints of all dialects read requests and write answers with."""
