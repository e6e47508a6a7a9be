"""A fine-tuned model's answers to prompts.

In: a model or its folder, and prompts. Out: `Completion`s, and for the upstream check the scores
of lm-evaluation-harness.
"""
