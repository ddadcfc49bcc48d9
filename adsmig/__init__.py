"""adsmig moves very large data sets between file systems and object stores."""

__version__ = "0.1.0"
