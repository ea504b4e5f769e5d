"""What a run would take, before money is spent."""
