"""Checks of launch files: `ray up`, KubeRay and Slurm, without a cloud account.

In: a file. Out: every mistake that can be seen in it, with its line, and what could not be checked.
"""
