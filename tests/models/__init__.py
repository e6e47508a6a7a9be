"""What `symnoise_ray/models/` does, as tests."""
