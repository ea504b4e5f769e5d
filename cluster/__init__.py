"""Where Umbel runs for real: finding or starting the Ray cluster that a run uses."""
