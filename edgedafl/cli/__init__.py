"""The command line: parses, calls one function, renders."""

from edgedafl.cli.app import cli, main

__all__ = ["cli", "main"]
