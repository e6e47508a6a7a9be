"""The commands.

In: words of a command line. Out: an exit status, and what the verb prints.
"""
