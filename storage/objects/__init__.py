"""Where bytes lie: immutable objects on a local folder or any fsspec file system."""
