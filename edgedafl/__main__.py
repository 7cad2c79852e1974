"""`python -m edgedafl`."""

from edgedafl.cli import main

if __name__ == "__main__":
    main()
