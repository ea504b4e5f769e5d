"""Which code, environment and person made a run, and how its code is kept and found again."""
