"""What a run leaves in the store, who may write it, and how it is read back."""
