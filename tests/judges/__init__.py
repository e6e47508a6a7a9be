"""What `symnoise_ray/judges/` does, as tests."""
