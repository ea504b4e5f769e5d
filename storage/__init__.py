"""The store: immutable objects on any fsspec URL that hold runs, values, models and their lineage."""
