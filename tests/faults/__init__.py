"""Faults, each injected for real; README.md has the table of all of them."""
