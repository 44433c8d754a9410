"""WIDER FACE: average precision of a detector."""
