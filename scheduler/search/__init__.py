"""Which config does a trial get, and which trials are worth it: spaces, sampling, pruning, learning across groups."""
