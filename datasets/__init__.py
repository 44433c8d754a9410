"""Data sets: files and formats, nothing of models."""
