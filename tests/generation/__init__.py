"""What `symnoise_ray/generation/` does, as tests."""
