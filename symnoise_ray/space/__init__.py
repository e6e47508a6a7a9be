"""The search space, and the trials of a sweep.

In: a `SweepConfig`. Out: points of the space, and a `TrialPlan` for each.
"""
