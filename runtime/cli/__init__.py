"""The commands of `umbel` that run, show and ask."""
