"""The journal of a sweep, and MLflow.

In: events. Out: journal.jsonl, and runs in MLflow that say the same.
"""
