"""The WIDER FACE evaluator, usable on its own: `python -m evalkit.widerface_eval`."""
