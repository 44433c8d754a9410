"""Sessions that run in a worker process of another interpreter.

Some runtimes pin an old NumPy or clash with newer packages. `isolated` gives any backend as it is
in another interpreter, which needs NumPy and the runtime, and none of evalkit's dependencies.
"""
