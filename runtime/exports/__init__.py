"""Runs for the tools that a team has already."""
