"""Files to rows, rows to tokens.

In: the names of data sources. Out: `Example`s, and token rows in a table that every worker maps
into its memory.
"""
