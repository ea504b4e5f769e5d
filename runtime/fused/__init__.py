"""Trials that run many at once, as one."""
