"""PyTorch: TorchScript, exported programs, state dicts."""
