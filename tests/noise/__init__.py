"""What `symnoise_ray/noise/` does, as tests."""
