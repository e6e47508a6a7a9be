"""The launch wing."""
