"""What people see of a sweep.

In: results and curves. Out: the live board on a terminal, and report.html and report.md.
"""
