"""Checks and forecasts before anything is spent.

In: a configuration. Out: one line that says what is not usable; or steps, memory, disk and calls
of the judge.
"""
