"""Several runs on one cluster: who may have how many workers."""
