"""Files that travel in bundles."""
