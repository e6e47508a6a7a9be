"""What `symnoise_ray/space/` does, as tests."""
