"""What `symnoise_ray/records/` does, as tests."""
