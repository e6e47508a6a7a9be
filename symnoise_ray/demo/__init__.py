"""The embedded demo: a tiny language model, instruction data that go with it, and their builder.

The files are committed, so that a comparison of fine-tuning methods runs on a laptop without
downloads. `content` says where they lie; `python -m symnoise_ray.demo.build` makes them again.
"""
