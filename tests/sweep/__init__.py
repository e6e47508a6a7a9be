"""What `symnoise_ray/sweep/` does, as tests."""
