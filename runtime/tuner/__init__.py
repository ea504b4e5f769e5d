"""Experiments written for Ray Tune, run by Umbel."""
