"""The embedded demo: a tiny language model, instruction data for it, and their builder.

The files come with the package, so that a comparison of fine-tuning methods runs on a laptop
without downloads. `content` says where they lie, and `python -m symnoise_ray.demo.build` builds
them again.
"""
