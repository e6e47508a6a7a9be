"""The steps of `benchmarks/gpu.py`, one module each, with a function `check`.

In: a `Step` (see `step`), and the words of the table in `gpu.py`. Out: the line that is printed,
and the figures that were noted on the way. A check that finds something wrong raises.
"""
