"""What carries leases to processes that run them: Ray actors, or this process."""
