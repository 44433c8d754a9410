"""The contracts of backends and of tasks, as tests that any of them can be put through.

Derive a class from `BackendContract` or `TaskContract` in a test file of your own; pytest collects
its ``test_*`` methods. What they check is what evalkit relies on. Nothing here imports pytest.
"""

from __future__ import annotations

from evalkit.testing.backend import BackendContract
from evalkit.testing.task import TaskContract

__all__ = ["BackendContract", "TaskContract"]
