"""Is a difference real, and are two sets of values alike? Pure functions of numbers."""
