"""A fine-tuned model's answers to prompts.

In: a model or its folder, and prompts. Out: `Completion`s; and for the upstream check, scores in
tasks of lm-evaluation-harness.
"""
