"""Fine-tune language models with embedding noise, and find out honestly whether it helps.

A trial is a pure description that flows one way:
config -> data -> noise -> train -> generate -> judge -> score -> track.
A sweep is many trials and one honest verdict.
"""

__version__ = "0.1.0"
