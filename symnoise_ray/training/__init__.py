"""One rank's training of one trial.

In: a `TrialConfig`. Out: a fine-tuned model in memory, and a record per step.
"""
