"""The whole sweep: search, confirmation, verdict, and going on with it.

In: a `SweepConfig` and a directory. Out: the files of the sweep in that directory.
"""
