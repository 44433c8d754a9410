"""The LFW family: ten-fold verification of pairs."""
