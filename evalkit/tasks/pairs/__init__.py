"""Your own pairs: verification on a table of pairs, or on ready scores."""
