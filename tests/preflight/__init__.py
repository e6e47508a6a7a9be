"""What `symnoise_ray/preflight/` does, as tests."""
