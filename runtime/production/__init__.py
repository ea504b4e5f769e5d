"""Are the models that are served good: gates, comparisons, drift, predictions in bulk."""
