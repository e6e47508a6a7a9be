"""Models and tokenizers: where they lie, what they hold, and how they are loaded.

In: a `ModelConfig`. Out: a model, its tokenizer, its shape without weights, and the DeepSpeed
engine that trains it.
"""
