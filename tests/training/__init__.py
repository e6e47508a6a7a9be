"""What `symnoise_ray/training/` does, as tests."""
