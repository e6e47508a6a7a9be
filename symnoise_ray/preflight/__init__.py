"""Checks and forecasts before a trial or a sweep starts.

In: a configuration. Out: an error of one line that says what cannot be used; or a forecast of
steps, memory, disk and calls of the judge.
"""
