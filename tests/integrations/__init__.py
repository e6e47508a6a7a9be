"""What `symnoise_ray/integrations/` does, as tests."""
