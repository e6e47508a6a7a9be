"""The pages of documentation, followed as a reader follows them."""
