"""What `symnoise_ray/demo/` does, as tests."""
