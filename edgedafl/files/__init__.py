"""What is read from a user's disk, and files that are whole or absent."""

from edgedafl.files.atomic import digest_of, write_atomic

__all__ = ["digest_of", "write_atomic"]
