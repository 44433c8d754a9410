"""MXNet, in a worker of its own environment."""
