"""Sign-off: a matrix of runs, each held against a reference by margins fixed beforehand."""
