"""Models and tokenizers in memory, and what holds them.

In: a `ModelConfig`. Out: a model, its tokenizer, its shape without weights, and DeepSpeed's engine
around it.
"""
