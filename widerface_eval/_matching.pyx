# cython: boundscheck=False, wraparound=False, cdivision=True
"""Box overlap and matching of one image; the reference is `_reference.py`."""
