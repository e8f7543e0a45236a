"""Records that are changed together."""
