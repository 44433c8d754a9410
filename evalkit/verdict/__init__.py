"""Whether one run is as good as another: comparison, gate, sign-off."""
