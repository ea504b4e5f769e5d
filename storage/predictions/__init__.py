"""What served models answered, and what turned out to be true."""
