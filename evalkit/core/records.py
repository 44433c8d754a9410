"""The base of records: typed values that are written to a file and read back."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, computed_field, model_validator

from evalkit.core import schema1


class Record(BaseModel):
    """A frozen value; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class TaskRecord(Record):
    """A record about one task, which files of schema 1 call the protocol.

    Attributes
    ----------
    task : str
        Registered name.
    """

    task: str

    @model_validator(mode="before")
    @classmethod
    def _of_schema_1(cls, values: Any) -> Any:
        return schema1.task_named(values)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def protocol(self) -> str:
        """The task's name in upper case, as files of schema 1 have it."""
        return self.task.upper()
