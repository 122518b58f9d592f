"""TFX components of our own, one a file."""
