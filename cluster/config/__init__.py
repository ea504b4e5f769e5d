"""What a cluster is to be, checked before any manifest is written."""
