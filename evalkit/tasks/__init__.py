"""Evaluations: one module a benchmark, each the way from its data set to its result."""
