"""Other people's trainers: this package's noise in them, and a sweep's winner written for them.

In: a trainer class of Hugging Face, or the directory of a finished sweep. Out: the same class with
noise on the token embeddings, or a script or configuration. The trainers themselves are never
imported here: whoever uses one has it.
"""
