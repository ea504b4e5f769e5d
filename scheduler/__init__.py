"""The pure core: what runs next, and why. No Ray, no I/O, no clock, no global randomness."""
