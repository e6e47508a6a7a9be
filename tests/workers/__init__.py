"""What `symnoise_ray/workers/` does, as tests."""
