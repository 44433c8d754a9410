"""Lower precisions of PyTorch models."""
