"""A production machine-learning system for hourly bike-sharing demand, built on TFX."""

__version__ = "0.1.0"
