"""Other people's tools: trainers with this package's noise, and files that tools read.

In: a trainer class of Hugging Face, or the directory of a finished sweep. Out: the same class with
noise on the token embeddings; or a script or configuration with the winner; or AlpacaEval's files.
The tools themselves are never imported here: whoever uses one has it.
"""
