"""What `symnoise_ray/data/` does, as tests."""
