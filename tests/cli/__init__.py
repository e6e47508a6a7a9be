"""What `symnoise_ray/cli/` does, as tests."""
