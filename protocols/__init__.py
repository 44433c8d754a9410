"""Protocols: arrays in, typed metrics out; no file, no model, no printing."""
