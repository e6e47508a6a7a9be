"""Noise on token embeddings, the subject of this package, and on hidden states beside it.

In: noise settings, and for every forward pass its samples, positions and step. Out: x + s * e in
place of x. `types` is the table of noise types, `embedding` adds the noise, `layers` adds it to
hidden states, and `philox` draws its random words. Of this package the wing imports `errors` alone.
"""
