"""What users ask of runs that were: what differs, why trials failed, one trial again."""
