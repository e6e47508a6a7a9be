"""What `symnoise_ray/statistics/` does, as tests."""
