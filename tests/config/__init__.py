"""What `symnoise_ray/config/` does, as tests."""
