"""The heart: noise on token embeddings.

In: noise settings, and for every forward pass its samples, positions and step. Out: x + s * e in
place of x. `types` is the table of noise types, `embedding` adds the noise, `philox` draws its
random words. The wing needs nothing else of this package but `errors`.
"""
