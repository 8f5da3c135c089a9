"""The version, apart from everything that is imported to use it."""

__version__ = "0.2.0"
