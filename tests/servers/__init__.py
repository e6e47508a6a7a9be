"""Servers on the loopback that the tests talk to."""
