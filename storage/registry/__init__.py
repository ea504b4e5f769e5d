"""Registered models: their versions, aliases, formats and promotion."""
