"""Reading requests and writing answers, shared by the endpoints of all dialects."""
