"""Devices whose runtime is elsewhere: model inputs written out, outputs read back by a manifest."""
