"""What `symnoise_ray/tracking/` does, as tests."""
