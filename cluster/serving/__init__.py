"""Registered models on Ray Serve."""
