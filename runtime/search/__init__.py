"""What a sweep's search, pruning and budget mean, and what the driver keeps of them."""
