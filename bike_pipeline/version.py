"""The package's version, for whoever needs it and not the package's face."""

__version__ = "0.1.0"
