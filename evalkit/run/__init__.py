"""Inference: open a model, prepare images, fill the outputs store."""
