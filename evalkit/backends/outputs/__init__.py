"""Outputs that a device wrote elsewhere, read in place of a session."""
