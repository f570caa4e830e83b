"""The data plane in this process, and what it needs from Python's side."""
