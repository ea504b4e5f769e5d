"""Many small PyTorch models trained as one: `umbel.torch`."""
