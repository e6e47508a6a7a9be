"""What `symnoise_ray/report/` does, as tests."""
