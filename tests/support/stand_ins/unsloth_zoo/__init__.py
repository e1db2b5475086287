"""A stand-in for Unsloth's second package."""
