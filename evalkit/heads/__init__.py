"""Heads: from raw tensors to embeddings or detections."""
