"""Short unique integers from a serverless ticket server."""

__version__ = "0.1.0"
