"""The files of a sweep as types.

In and out: what one stage writes and another reads. `layout` knows the names of the files.
"""
