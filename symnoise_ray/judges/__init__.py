"""Pairwise judges behind one protocol.

In: pairs of answers to the same prompt. Out: `Preference`s. `choose` makes the judge that the
configuration names, `judging` asks it in both orders, `store` remembers what it said.
"""
