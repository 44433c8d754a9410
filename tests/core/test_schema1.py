"""Files of schema 1 and 2 that are damaged, foreign, or of mixed schemas."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evalkit.core.errors import InputError
from evalkit.core.results import Metric, Result, load_result
from evalkit.verdict.signoff.record import Signoff, load_signoff

FILES = Path(__file__).parents[1] / "v1" / "files"
RESULTS = ("lfw-fp32", "widerface-fp32", "ijbc-fp32")

Place = tuple[str | int, ...]

JUNK = st.sampled_from(
    [
        *(None, True, 5, -1, 10**400, float("inf"), "x", [], {}, [[1]], [{}], {"a": [1]}),
        *([{"name": ["q"]}], [{"name": {}}], [{"name": "tar@far=1e-4", "flags": 5}]),
        [{"name": "tar", "counts": [{}]}],
        {"name": "tar", "figure": "tar", "value": 1, "rule": "", "share": ["a", "b"]},
    ]
)


@cache
def content(name: str, schema: int) -> Any:
    """Return a valid file's values, with few rows in its long lists."""
    if name == "signoff":
        path = FILES / "signoff/signoff.json"
        values = json.loads(path.read_text()) if schema == 1 else dump(load_signoff(path))
        for cell in values["cells"]:
            cell["run"]["metrics"] = cell["run"]["metrics"][:2]
        return values
    path = FILES / f"results/{name}.json"
    values = json.loads(path.read_text()) if schema == 1 else dump(load_result(path))
    return {**values, "metrics": values["metrics"][:2]}


def dump(record: Result | Signoff) -> Any:
    return json.loads(record.model_dump_json())


def places(values: Any, above: Place = ()) -> Iterator[Place]:
    """Yield where each value of a tree stands."""
    rows = values.items() if isinstance(values, dict) else enumerate(values)
    for name, value in rows:
        yield (*above, name)
        if isinstance(value, dict | list):
            yield from places(value, (*above, name))


def damaged(values: Any, place: Place, junk: Any) -> Any:
    """Return a copy with another value at a place."""
    values = copy.deepcopy(values)
    parent = values
    for name in place[:-1]:
        parent = parent[name]
    parent[place[-1]] = junk
    return values


def use(result: Result) -> None:
    """Ask what commands ask of a result."""
    assert result.headline is None or result.headline in result.metrics
    for metric in result.metrics:
        assert metric.error_rate is None or 0 <= metric.error_rate <= 1


def refused_or_read(path: Path, values: Any, load: Callable[[Path], Any]) -> Any:
    path.write_text(json.dumps(values))
    try:
        return load(path)
    except InputError:
        return None


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "file.json"


fuzzed = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("schema", [1, 2])
@pytest.mark.parametrize("name", RESULTS)
@fuzzed
@given(data=st.data())
def test_a_damaged_result_is_refused_or_read(
    name: str, schema: int, file: Path, data: st.DataObject
) -> None:
    values = content(name, schema)
    place = data.draw(st.sampled_from(list(places(values))))
    result = refused_or_read(file, damaged(values, place, data.draw(JUNK)), load_result)
    if result is not None:
        use(result)


@pytest.mark.parametrize("schema", [1, 2])
@fuzzed
@given(data=st.data())
def test_a_damaged_signoff_is_refused_or_read(schema: int, file: Path, data: st.DataObject) -> None:
    values = content("signoff", schema)
    place = data.draw(st.sampled_from(list(places(values))))
    refused_or_read(file, damaged(values, place, data.draw(JUNK)), load_signoff)


@pytest.mark.parametrize(
    ("place", "junk"),
    [
        (("schema_version",), []),
        (("schema_version",), {}),
        (("schema_version",), True),
        (("dataset", "counts"), 5),
        (("dataset", "counts"), [{}]),
        (("metrics", 0, "name"), ["q"]),
        (("metrics", 0, "flags"), 5),
        (("metrics", 0, "counts"), [[1]]),
    ],
)
def test_damage_is_refused(file: Path, place: Place, junk: Any) -> None:
    file.write_text(json.dumps(damaged(content("lfw-fp32", 1), place, junk)))
    with pytest.raises(InputError, match=r"file\.json"):
        load_result(file)


def test_deep_nesting_is_refused(file: Path) -> None:
    file.write_text("[" * 200_000)
    for load in (load_result, load_signoff):
        with pytest.raises(InputError, match=r"file\.json"):
            load(file)


def test_a_share_names_counts_that_are_there() -> None:
    values = {"name": "a", "figure": "a", "value": 0.5, "rule": "", "share": ("right", "all")}
    assert Metric.model_validate({**values, "counts": {"right": 1, "all": 2}}).error_rate == 0.5
    with pytest.raises(ValidationError, match="counts that are not there: right"):
        Metric.model_validate({**values, "counts": {"all": 2}})


def test_names_are_read_in_files_of_schema_1_only(file: Path) -> None:
    with pytest.raises(ValidationError, match="figure"):
        Metric.model_validate({"name": "rank-1/foo", "value": 0.5, "rule": "open_set"})
    values = copy.deepcopy(content("lfw-fp32", 2))
    del values["metrics"][0]["figure"]
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"metrics\.0\.figure"):
        load_result(file)


def test_a_signoff_of_schema_2_needs_figures(file: Path) -> None:
    values = copy.deepcopy(content("signoff", 2))
    assert values["schema_version"] == 2
    cell = next(cell for cell in values["cells"] if cell["comparison"])
    del cell["comparison"]["metrics"][0]["figure"]
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"comparison\.metrics\.0\.figure"):
        load_signoff(file)


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_still_names_its_protocol(name: str) -> None:
    before = content(name, 1)["protocol"]
    assert load_result(FILES / f"results/{name}.json").protocol == before
